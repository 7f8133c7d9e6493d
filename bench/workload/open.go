package workload

import (
	"context"
	"errors"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

// opened is an open store with its snapshot cache.
type opened struct {
	*xdswal.Store
	cache *xdscache.SnapshotCache
	opt   xdswal.Options
}

// immutable is the promise of a caller that never changes a message that it has set.
var immutable = xdscache.WithImmutableMessages()

// open opens a store that keeps no snapshot for its age. An update may wait a minute for
// its commit: a busy disk must make a run slow, not fail it.
func open(ctx context.Context, opt xdswal.Options, cacheOpts ...xdscache.SnapshotOption) (*opened, error) {
	opt.KeepFor = xdswal.Off
	opt.CommitTimeout = time.Minute
	store, err := xdswal.Open(ctx, opt)
	if err != nil {
		return nil, err
	}
	cache := store.SnapshotCache(true, cachev3.IDHash{}, nil, cacheOpts...)
	return &opened{Store: store, cache: cache, opt: opt}, nil
}

var errOtherState = errors.New("the restored state has another digest")

// closeChecked closes the store. If it is durable, it checks that the store restores the
// same state.
func (o *opened) closeChecked(ctx context.Context) error {
	if err := o.Close(ctx); err != nil || o.opt.MemoryOnly {
		return err
	}
	again, err := open(ctx, o.opt)
	if err != nil {
		return err
	}
	if again.State().Digest() != o.State().Digest() {
		err = errOtherState
	}
	return errors.Join(err, again.Close(ctx))
}
