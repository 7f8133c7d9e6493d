// Package resourcedir loads a directory of resource files, <node>.yaml or
// <node>.json, at start and when they change.
//
// It reads the directory at an interval instead of using file notifications. That
// works on network file systems too, and with files that are symbolic links and
// change together, as in a mounted Kubernetes ConfigMap.
//
// A node keeps its resources if its file is deleted, so that the loss of a data
// source does not remove the configuration of a fleet.
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

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/xdscache"
)

// DefaultInterval is the default of Loader.Interval.
const DefaultInterval = time.Second

// Loader loads one directory into one cache.
type Loader struct {
	// Dir is the directory. It may be created later.
	Dir string
	// Interval is the time between two reads of the directory; default 1 s.
	Interval time.Duration
	// MaxBytes bounds the size of a file.
	MaxBytes int64
	Cache    *xdscache.SnapshotCache
	Logger   *slog.Logger

	loaded  map[string]loaded // by file name
	logged  map[string]string // the last error of a file that is not loaded, by file name
	missing bool
}

// loaded is the version of a file that was read last.
type loaded struct {
	info os.FileInfo
	sum  [sha256.Size]byte
	// settled is set if the file was older than a tick of the file system's
	// clock. A change within the same tick does not change the modification time.
	settled bool
}

// settleAfter is longer than the tick of any file system's clock.
const settleAfter = 2 * time.Second

func (v loaded) is(info os.FileInfo) bool {
	return v.settled && os.SameFile(v.info, info) && v.info.Size() == info.Size() && v.info.ModTime().Equal(info.ModTime())
}

// Run loads new and changed files until ctx is done. It logs a file that cannot be
// loaded once for each version, and leaves its node unchanged.
func (l *Loader) Run(ctx context.Context) {
	l.loaded, l.logged = map[string]loaded{}, map[string]string{}
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
			l.Logger.Warn("resource directory cannot be read; the restored resources are still served", "dir", l.Dir, "error", err)
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
			l.skip(e.Name(), fmt.Errorf("node %q already has a file: %s", node, other))
			continue
		}
		nodes[node] = e.Name()
		l.file(ctx, e.Name(), node)
	}
	// A file that is deleted and created again is a new one.
	maps.DeleteFunc(l.loaded, func(name string, _ loaded) bool { return !present[name] })
	maps.DeleteFunc(l.logged, func(name, _ string) bool { return !present[name] })
}

// nodeOf returns the node of a file. It returns false for other files.
func nodeOf(name string) (string, bool) {
	ext := filepath.Ext(name)
	node := strings.TrimSuffix(name, ext)
	switch ext {
	case ".yaml", ".yml", ".json":
		return node, node != "" && !strings.HasPrefix(name, ".")
	}
	return "", false
}

// skip logs the error of a file that is not loaded until it changes.
func (l *Loader) skip(name string, err error) { l.log(name, err, false) }

// retry logs the error of a file that is loaded again in the next interval.
func (l *Loader) retry(name string, err error) { l.log(name, err, true) }

// log logs an error of a file, unless it is the same as the last one.
func (l *Loader) log(name string, err error, retry bool) {
	if l.logged[name] != err.Error() {
		l.Logger.Error("resource file was not loaded; its node is unchanged", "file", filepath.Join(l.Dir, name), "retry", retry, "error", err)
	}
	l.logged[name] = err.Error()
}

// file loads a file if it is new or has changed.
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

// apply sets the resources of a node to those in its file. It returns false if
// they must be applied again.
func (l *Loader) apply(ctx context.Context, name, node string, data []byte) bool {
	seq, doc, err := l.load(ctx, node, data)
	var rejected *resourcefile.Error
	switch {
	case err == nil:
		delete(l.logged, name)
		l.Logger.Info("resource file loaded", "file", filepath.Join(l.Dir, name), "node", node, "resources", len(doc.Resources), "sequence", seq)
	case ctx.Err() != nil:
		return false
	case errors.As(err, &rejected):
		delete(l.logged, name) // log the error also if another version had it
		l.skip(name, err)
	default:
		// The journal may accept it later.
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

// read reads a file, up to one byte more than MaxBytes.
func (l *Loader) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(l.Dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, l.MaxBytes+1))
}
