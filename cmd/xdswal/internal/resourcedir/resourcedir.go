// Package resourcedir loads a directory of resource files, <node>.yaml or
// <node>.json, at start and whenever one changes.
//
// It looks every interval rather than being told by the system: that also
// works on network file systems and where files are symbolic links that change
// as one, as in a mounted Kubernetes ConfigMap.
//
// A file that disappears leaves its node as it is, since a data source that is
// gone must not take the configuration of a fleet with it.
package resourcedir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/xdscache"
)

// DefaultInterval is how often the directory is looked at.
const DefaultInterval = time.Second

// Loader loads one directory into one cache.
type Loader struct {
	// Dir is the directory; it may be missing, and come later.
	Dir string
	// Interval is how often it is looked at; default 1 s.
	Interval time.Duration
	// MaxBytes bounds one file.
	MaxBytes int64
	Cache    *xdscache.SnapshotCache
	Logger   *slog.Logger

	loaded  map[string]version // by file name
	missing bool
}

// version tells whether a file may have changed.
type version struct {
	size    int64
	changed time.Time
}

// Run loads what changes until ctx is done. What cannot be loaded is logged,
// once a version of the file, and leaves its node as it is.
func (l *Loader) Run(ctx context.Context) {
	l.loaded = map[string]version{}
	if l.Interval == 0 {
		l.Interval = DefaultInterval
	}
	tick := time.NewTicker(l.Interval)
	defer tick.Stop()
	for {
		l.scan(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *Loader) scan(ctx context.Context) {
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		if !l.missing {
			l.Logger.Warn("resource directory cannot be read; what was restored goes on being served", "dir", l.Dir, "error", err)
		}
		l.missing = true
		return
	}
	l.missing = false
	nodes := map[string]string{}
	for _, e := range entries {
		node, ok := nodeOf(e.Name())
		if !ok || ctx.Err() != nil {
			continue
		}
		if other, twice := nodes[node]; twice {
			l.skip(e.Name(), fmt.Errorf("node %q has a file already: %s", node, other))
			continue
		}
		nodes[node] = e.Name()
		l.file(ctx, e.Name(), node)
	}
}

// nodeOf returns the node that a file is for.
func nodeOf(name string) (string, bool) {
	ext := filepath.Ext(name)
	node := strings.TrimSuffix(name, ext)
	switch ext {
	case ".yaml", ".yml", ".json":
		return node, node != "" && !strings.HasPrefix(name, ".")
	}
	return "", false
}

// skip logs why a file is not loaded, unless that version of it was seen.
func (l *Loader) skip(name string, err error) {
	v, _ := l.stat(name)
	if l.loaded[name] == v {
		return
	}
	l.loaded[name] = v
	l.Logger.Error("resource file was not loaded; its node keeps what it has", "file", filepath.Join(l.Dir, name), "error", err)
}

func (l *Loader) stat(name string) (version, error) {
	info, err := os.Stat(filepath.Join(l.Dir, name))
	if err != nil {
		return version{}, err
	}
	if !info.Mode().IsRegular() {
		return version{}, errors.New("not a regular file")
	}
	return version{size: info.Size(), changed: info.ModTime()}, nil
}

func (l *Loader) file(ctx context.Context, name, node string) {
	v, err := l.stat(name)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && l.loaded[name] == v) {
		return
	}
	if err != nil {
		l.skip(name, err)
		return
	}
	seq, doc, err := l.load(ctx, name, node)
	var refused *resourcefile.Error
	switch {
	case err == nil:
		l.loaded[name] = v
		l.Logger.Info("resource file loaded", "file", filepath.Join(l.Dir, name), "node", node, "resources", len(doc.Resources), "sequence", seq)
	case ctx.Err() != nil:
	case errors.As(err, &refused):
		l.skip(name, err)
	default:
		// The journal may take it the next time.
		l.Logger.Error("resource file was not applied; it is tried again", "file", filepath.Join(l.Dir, name), "error", err)
	}
}

func (l *Loader) load(ctx context.Context, name, node string) (uint64, *resourcefile.Document, error) {
	data, err := l.read(name)
	if err != nil {
		return 0, nil, err
	}
	doc, err := resourcefile.Parse(data)
	if err != nil {
		return 0, nil, err
	}
	var snapshot cachev3.ResourceSnapshot
	if snapshot, err = doc.Snapshot(); err != nil {
		return 0, nil, err
	}
	seq, err := l.Cache.Set(ctx, node, snapshot)
	return uint64(seq), doc, err
}

func (l *Loader) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(l.Dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, l.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > l.MaxBytes {
		return nil, &resourcefile.Error{Reason: "too_large", Message: fmt.Sprintf("the file is larger than %d bytes", l.MaxBytes)}
	}
	return data, nil
}
