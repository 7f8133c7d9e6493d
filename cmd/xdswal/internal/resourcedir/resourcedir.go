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
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

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

	loaded  map[string]loaded // by file name
	told    map[string]string // what was logged of a file that is not loaded
	missing bool
}

// loaded is what a file was when it was read last.
type loaded struct {
	info os.FileInfo
	sum  [sha256.Size]byte
	// settled is set if the file was old enough then that a later change
	// shows: within a tick of the file system's clock it may not.
	settled bool
}

// settleAfter is more than the ticks of file systems.
const settleAfter = 2 * time.Second

func (v loaded) is(info os.FileInfo) bool {
	return v.settled && os.SameFile(v.info, info) && v.info.Size() == info.Size() && v.info.ModTime().Equal(info.ModTime())
}

// Run loads what changes until ctx is done. What cannot be loaded is logged,
// once a version of the file, and leaves its node as it is.
func (l *Loader) Run(ctx context.Context) {
	l.loaded, l.told = map[string]loaded{}, map[string]string{}
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
	nodes, present := map[string]string{}, map[string]bool{}
	for _, e := range entries {
		node, ok := nodeOf(e.Name())
		if !ok || ctx.Err() != nil {
			continue
		}
		present[e.Name()] = true
		if other, twice := nodes[node]; twice {
			l.skip(e.Name(), fmt.Errorf("node %q has a file already: %s", node, other))
			continue
		}
		nodes[node] = e.Name()
		l.file(ctx, e.Name(), node)
	}
	// A file that comes again is a new one.
	maps.DeleteFunc(l.loaded, func(name string, _ loaded) bool { return !present[name] })
	maps.DeleteFunc(l.told, func(name, _ string) bool { return !present[name] })
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

// skip logs why a file is not loaded.
func (l *Loader) skip(name string, err error) {
	if l.isNews(name, err) {
		l.Logger.Error("resource file was not loaded; its node keeps what it has", "file", filepath.Join(l.Dir, name), "error", err)
	}
}

// retry logs why a file was not loaded yet.
func (l *Loader) retry(name string, err error) {
	if l.isNews(name, err) {
		l.Logger.Error("resource file was not loaded; it is tried again", "file", filepath.Join(l.Dir, name), "error", err)
	}
}

// isNews reports whether something else is wrong with a file than before.
func (l *Loader) isNews(name string, err error) bool {
	known := l.told[name] == err.Error()
	l.told[name] = err.Error()
	return !known
}

// file loads a file if it is another than it was.
func (l *Loader) file(ctx context.Context, name, node string) {
	info, err := os.Stat(filepath.Join(l.Dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // a link whose target is being replaced
	case err != nil:
		l.skip(name, err)
		return
	case !info.Mode().IsRegular():
		l.skip(name, errors.New("not a regular file"))
		return
	}
	last, known := l.loaded[name]
	if known && last.is(info) {
		return
	}
	settled := time.Since(info.ModTime()) > settleAfter
	data, err := l.read(name)
	if err != nil {
		l.retry(name, err)
		return
	}
	now := loaded{info: info, sum: sha256.Sum256(data), settled: settled}
	if known && last.sum == now.sum {
		l.loaded[name] = now
		return
	}
	if l.apply(ctx, name, node, data) {
		l.loaded[name] = now
	}
}

// apply sets a node to what its file says. It reports false if that is to be
// tried again.
func (l *Loader) apply(ctx context.Context, name, node string, data []byte) bool {
	seq, doc, err := l.load(ctx, node, data)
	var refused *resourcefile.Error
	switch {
	case err == nil:
		delete(l.told, name)
		l.Logger.Info("resource file loaded", "file", filepath.Join(l.Dir, name), "node", node, "resources", len(doc.Resources), "sequence", seq)
	case ctx.Err() != nil:
		return false
	case errors.As(err, &refused):
		delete(l.told, name) // this content was not told of
		l.skip(name, err)
	default:
		// The journal may take it the next time.
		l.retry(name, err)
		return false
	}
	return true
}

func (l *Loader) load(ctx context.Context, node string, data []byte) (uint64, *resourcefile.Document, error) {
	if int64(len(data)) > l.MaxBytes {
		return 0, nil, &resourcefile.Error{Reason: "too_large", Message: fmt.Sprintf("the file is larger than %d bytes", l.MaxBytes)}
	}
	doc, err := resourcefile.Parse(data)
	if err != nil {
		return 0, nil, err
	}
	snapshot, err := doc.Snapshot()
	if err != nil {
		return 0, nil, err
	}
	seq, err := l.Cache.Set(ctx, node, snapshot)
	return uint64(seq), doc, err
}

// read reads a file, or a little more of it than may be loaded.
func (l *Loader) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(l.Dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, l.MaxBytes+1))
}
