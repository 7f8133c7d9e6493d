// Package backends defines where snapshots are shipped to: a [Backend] is a
// store of immutable objects under slash-separated keys, such as a directory
// or a bucket.
//
// The package holds the contract and its errors, and no driver. The drivers
// are packages beside it (backends/file), backends/backendurl opens one by
// URL, and backends/backendtest is the suite that each driver, a user's own
// too, has to pass.
package backends

import (
	"context"
	"io"
	"time"
)

// Backend stores immutable objects.
//
// Objects. An object is created whole by Put and never changes after; it can
// only be deleted. No caller, in any process, ever sees a part of an object.
//
// Durability. When Put or Delete has returned nil, its effect survives the
// crash of this process and of this machine, and every later call by anyone
// sees it.
//
// Missing. A key is missing if no Put of it has completed, or if it has been
// deleted. A store that cannot be reached or read is an error and never looks
// like one that is empty.
//
// Concurrency. All methods may be called concurrently, by any number of
// goroutines and processes, for the same keys and for different ones. The
// reader that Get returns is used by one goroutine at a time.
//
// Context. A call whose ctx is done returns promptly, with an error that
// satisfies errors.Is(err, ctx.Err()). A Put cut short this way leaves nothing,
// unless ctx was done so late that the object was being published already.
//
// Errors. Every error is a [*Error], except the io.EOF of a reader, and matches
// the sentinel of this package that describes it, if there is one. An error of
// Put or Delete without such a sentinel leaves the outcome open, since the
// answer may have been lost on the way: the object is there whole, or it is
// missing. Whoever retries a Put and then meets [ErrExists] reads the object
// to learn whose it is.
//
// Keys. A key must satisfy [ValidKey]; for any other key each method that
// takes one returns [ErrKey]. No key may be a directory of another: where "a"
// exists, a driver may refuse "a/b", and the reverse, with ErrKey. Keys that
// differ only in case may be one key on some file systems; avoid them.
type Backend interface {
	// Put creates the object key with what body yields from its current
	// offset to its end. It is all or nothing, and durable once it returns
	// nil.
	//
	// Put only creates: if key exists it returns ErrExists, and the object
	// that exists is untouched and durable. Of concurrent Puts of one key
	// exactly one succeeds.
	//
	// body is streamed, not held in memory. A driver may read it more than
	// once, by seeking back to the offset where it began, and leaves its
	// offset anywhere: a caller who retries seeks first. An error of body
	// comes back through errors.Is and leaves nothing. Put does not use body
	// after it has returned, and does not close it.
	Put(ctx context.Context, key string, body io.ReadSeeker) error

	// Get reads the bytes [offset, offset+length) of the object key; a
	// negative length means to its end.
	//
	// A missing key is ErrNotFound. A range that is not wholly inside the
	// object, or a negative offset, is ErrRange; the empty range at the end
	// is inside. Both are reported by Get and not by the reader.
	//
	// The reader yields exactly the range and then io.EOF, or an error: never
	// silently less, also while the object is being deleted. ctx governs the
	// reader too, and is checked at each Read. The caller closes the reader,
	// at the end or before.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// List returns all objects whose key begins with prefix, sorted by the
	// bytes of their keys. prefix is a plain string, which may end within a
	// segment; "" lists everything, and one that begins no valid key lists
	// nothing.
	//
	// An object whose Put returned before List was called, and that nobody
	// deletes meanwhile, is listed. One created or deleted meanwhile may be
	// listed or not. What other tools left in the store under names that are
	// not valid keys is not listed.
	List(ctx context.Context, prefix string) ([]Object, error)

	// Delete removes the object key, durably. It is idempotent: a missing key
	// is no error.
	Delete(ctx context.Context, key string) error

	// String returns where the objects are, as a URL for errors and status,
	// always without credentials.
	String() string
}

// ConditionalCreator is implemented by a backend that has to ask its store
// whether it creates conditionally. A backend without it always does.
type ConditionalCreator interface {
	// ProbeConditionalCreate reports whether the store refuses to create an
	// object that exists, as Put needs for its promise that of concurrent
	// Puts exactly one succeeds. It may leave a tiny object of its own in the
	// backend.
	//
	// Once it has returned false, Put looks whether the key is taken before it
	// writes. That is weaker: two Puts at the same moment may both return nil,
	// and the object is that of either one. Let one process at a time write.
	ProbeConditionalCreate(ctx context.Context) (bool, error)
}

// Sweeper is implemented by a backend in which crashed uploads leave something
// behind that is no object, but is stored, and is perhaps paid for.
type Sweeper interface {
	// Sweep removes what uploads left that began longer ago than olderThan,
	// by the store's clock, of keys that begin with one of prefixes, and
	// returns how many there were, also beside an error. An upload that is
	// alive after all fails and leaves nothing: choose more time than the
	// slowest Put takes, and no prefix under which others write.
	Sweep(ctx context.Context, olderThan time.Duration, prefixes ...string) (int, error)
}

// Object describes an object that exists.
type Object struct {
	Key     string
	Size    int64     // bytes
	ModTime time.Time // when it was created, by the store's clock, to the second or better
}

// Local is implemented by a backend whose store may be no further away than the
// data directory, such as a directory. What is lost with the machine may be lost
// with such a backend too, so by default only snapshots are shipped to it.
type Local interface {
	IsLocal() bool
}
