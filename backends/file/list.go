package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xdswal/xdswal/backends"
)

// List implements [backends.Backend]. It reads only the directories that can
// contain a key with prefix.
func (b *Backend) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.fail("list", prefix, err)
	}
	if err := b.checkDir("list", prefix); err != nil {
		return nil, err
	}
	dir, ok := prefixDir(prefix)
	if !ok {
		return nil, nil
	}
	l := lister{ctx: ctx, b: b, prefix: prefix}
	if err := l.dir(dir); err != nil {
		return nil, b.fail("list", prefix, err)
	}
	// The order of a directory walk differs from that of keys: the key "a-b"
	// sorts before "a/b", but the name "a" before "a-b".
	slices.SortFunc(l.objects, func(x, y backends.Object) int { return strings.Compare(x.Key, y.Key) })
	return l.objects, nil
}

// prefixDir returns the directory part of prefix, "" for the root. ok is false if no
// valid key begins with it, such as a path that leads out of the root.
func prefixDir(prefix string) (dir string, ok bool) {
	i := strings.LastIndexByte(prefix, '/')
	if i < 0 {
		return "", true
	}
	dir = prefix[:i]
	return dir, backends.ValidKey(dir) == nil
}

type lister struct {
	ctx     context.Context
	b       *Backend
	prefix  string
	objects []backends.Object
}

// dir adds the objects below the directory key.
func (l *lister) dir(key string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(l.b.dir, filepath.FromSlash(key)))
	if isMissing(err) && key != "" {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.entry(path.Join(key, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

// entry adds the object key, or the objects below the directory key.
func (l *lister) entry(key string, e fs.DirEntry) error {
	switch {
	case !strings.HasPrefix(key, l.prefix):
		return nil
	case backends.ValidKey(key) != nil:
		return nil // a temporary file, or not an object
	case e.IsDir():
		return l.dir(key)
	case !e.Type().IsRegular():
		return nil
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("stat object %q: %w", key, err)
	}
	l.objects = append(l.objects, backends.Object{Key: key, Size: info.Size(), ModTime: info.ModTime()})
	return nil
}
