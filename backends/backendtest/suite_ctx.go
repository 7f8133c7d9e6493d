package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// promptly is the time within which a call must return after its context is done:
// far more than a driver needs, and far less than the rest of the call would take.
const promptly = 10 * time.Second

// If the context is done, every method returns its error and has no effect.
func testCancelledBefore(t *testing.T, b backends.Backend) {
	put(t, b, "there", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Put(ctx, "new", bytes.NewReader([]byte("x")))
	requireError(t, b, err, context.Canceled, "put", "new")
	_, err = b.Get(ctx, "there", 0, -1)
	requireError(t, b, err, context.Canceled, "get", "there")
	_, err = b.List(ctx, "th")
	requireError(t, b, err, context.Canceled, "list", "th")
	requireError(t, b, b.Delete(ctx, "there"), context.Canceled, "delete", "there")
	require.Equal(t, []string{"there"}, keysOf(t, b, ""))

	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	err = b.Put(ctx, "new", bytes.NewReader([]byte("x")))
	requireError(t, b, err, context.DeadlineExceeded, "put", "new")
	requireMissing(t, b, "new")
}

// A Put whose context is cancelled midway returns long before the end of its body,
// and leaves no object.
func testCancelledPut(t *testing.T, b backends.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := slowBody{io.NewSectionReader(zeros{}, 0, 1<<30), func(offset int64) error {
		if offset >= 1<<20 {
			cancel()
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- b.Put(ctx, "dir/k", body) }()
	select {
	case err := <-done:
		requireError(t, b, err, context.Canceled, "put", "dir/k")
	case <-time.After(promptly):
		t.Fatalf("Put has not returned %v after its context was cancelled", promptly)
	}
	requireMissing(t, b, "dir/k")
	require.Empty(t, list(t, b, ""))
	put(t, b, "dir/k", []byte("good"))
}

// zeros is a source of zero bytes.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// A reader whose context is cancelled fails at its next Read, not with io.EOF.
func testCancelledRead(t *testing.T, b backends.Backend) {
	put(t, b, "k", noise(11, 4<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := b.Get(ctx, "k", 0, -1)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 1000))
	require.NoError(t, err)
	cancel()
	_, err = r.Read(make([]byte, 1000))
	requireError(t, b, err, context.Canceled, "get", "k")
	_ = r.Close() // may repeat the error
}

// All methods may be called concurrently.
func testConcurrent(t *testing.T, b backends.Backend) {
	shared := noise(12, 200_000)
	put(t, b, "shared", shared)
	const workers, rounds = 8, 5
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range rounds {
				errs[w] = errors.Join(errs[w], workOnce(t.Context(), b, w, i, shared))
			}
		}()
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, []string{"shared"}, keysOf(t, b, ""))
}

// workOnce puts, reads and deletes one object, and reads the shared one.
func workOnce(ctx context.Context, b backends.Backend, worker, round int, shared []byte) error {
	key := fmt.Sprintf("work/%d/%d", round, worker)
	own := noise(byte(100+worker*10+round), 1000*worker+round)
	if err := b.Put(ctx, key, bytes.NewReader(own)); err != nil {
		return err
	}
	got, err := read(ctx, b, key, 0, -1)
	if err != nil {
		return err
	}
	if !bytes.Equal(own, got) {
		return fmt.Errorf("object %q: content differs", key)
	}
	got, err = read(ctx, b, "shared", int64(worker), 100_000)
	if err != nil {
		return err
	}
	if !bytes.Equal(shared[worker:worker+100_000], got) {
		return errors.New("shared object: content differs")
	}
	if err := wantListed(ctx, b, key); err != nil {
		return err
	}
	if err := b.Delete(ctx, key); err != nil {
		return err
	}
	if _, err := read(ctx, b, key, 0, -1); !errors.Is(err, backends.ErrNotFound) {
		return fmt.Errorf("object %q after its Delete: %w", key, err)
	}
	return nil
}
