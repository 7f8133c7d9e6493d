package file

import (
	"context"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/internal/durable"
)

// Delete removes an object; see [backends.Backend]. Directories that become
// empty stay: another Put may be about to use them.
func (b *Backend) Delete(ctx context.Context, key string) error {
	if err := b.begin(ctx, "delete", key); err != nil {
		return err
	}
	path := b.path(key)
	if err := removeObject(path); err != nil {
		return b.fail("delete", key, err)
	}
	// A crash here leaves the object or not. The directory is synced although
	// nothing was removed, since an earlier Delete may have died right here.
	if err := durable.SyncDir(filepath.Dir(path)); err != nil && !missing(err) {
		return b.fail("delete", key, err)
	}
	return nil
}

// removeObject removes the regular file at path and nothing else: os.Remove
// would take an empty directory too.
func removeObject(path string) error {
	info, err := os.Lstat(path)
	if missing(err) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !missing(err) {
		return err
	}
	return nil
}
