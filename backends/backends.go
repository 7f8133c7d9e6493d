// Package backends defines where snapshots and batches are shipped to. A [Backend]
// is a store of immutable objects under slash-separated keys, such as a directory
// or a bucket.
//
// The package contains the contract, its errors and the rule for keys, and no
// driver. Drivers are packages of their own, such as backends/file and backends/s3.
// Package backends/backendurl opens a backend by URL. Package backends/backendtest
// tests a driver against the contract; a driver outside this module needs nothing
// else.
package backends

import (
	"context"
	"io"
	"time"
)

// Backend stores immutable objects.
//
// # Objects
//
// Put creates an object whole. An object never changes; it can only be deleted. No
// caller, in any process, ever sees part of an object.
//
// # Durability
//
// When Put or Delete has returned nil, its effect survives a crash of the process
// and of the machine, and every later call by any process sees it.
//
// # Missing objects
//
// A key is missing if no Put of it has completed, or if it has been deleted since.
// A store that cannot be reached or read is an error. It must never look like an
// empty store: the caller would conclude that there is nothing to restore.
//
// # Concurrency
//
// All methods may be called concurrently, by any number of goroutines and
// processes, for the same keys and for different ones. A reader that Get returned
// is used by one goroutine at a time.
//
// # Contexts
//
// A call whose ctx is done returns promptly, with an error for which
// errors.Is(err, ctx.Err()) is true. A Put that ctx ends leaves no object, unless
// the object was already being published.
//
// # Errors
//
// Every error is an [*Error], except the io.EOF of a reader, and wraps the error
// variable of this package that describes it, if there is one.
//
// An error of Put or Delete that wraps none of them leaves the outcome open,
// because the answer may have been lost on the way: the object exists whole, or it
// is missing. A caller that retries such a Put and gets [ErrExists] reads the
// object to learn whether its own Put created it.
//
// # Keys
//
// A key must satisfy [ValidKey]; methods that take a key return [ErrKey] for any
// other. A key may not be a directory of another key: where "a" exists, a driver
// may refuse "a/b" with ErrKey, and vice versa. Keys that differ only in case are
// the same key on some file systems; callers should not create them.
type Backend interface {
	// Put creates the object key with the bytes of body from its current offset
	// to its end. Either the whole object is created and durable, or none of it
	// is.
	//
	// Put never replaces an object. If key exists, Put returns ErrExists, and the
	// existing object is unchanged and durable. Of concurrent Puts of one key
	// exactly one succeeds.
	//
	// Put streams body; it does not need to fit in memory. Put may read it more
	// than once, by seeking back to the initial offset, and leaves its offset
	// undefined, so a caller that retries seeks first. An error of body is
	// returned wrapped, and leaves no object. Put neither closes body nor uses it
	// after returning.
	Put(ctx context.Context, key string, body io.ReadSeeker) error

	// Get returns a reader of the bytes [offset, offset+length) of the object
	// key. A negative length means to the end of the object.
	//
	// Get itself, and not the first Read, returns ErrNotFound if key is missing,
	// and ErrRange if offset is negative or the range is not wholly inside the
	// object. An empty range at the end of the object is inside.
	//
	// The reader returns exactly the bytes of the range and then io.EOF, or an
	// error. It must never return io.EOF early, even if the object is deleted
	// meanwhile. ctx applies to the reader too and is checked by each Read. The
	// caller closes the reader, at the end of the range or before.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// List returns all objects whose key begins with prefix, sorted bytewise by
	// key. prefix is a plain string that may end inside a segment. The prefix ""
	// matches every object; one that no valid key begins with matches none, and
	// is not an error.
	//
	// An object whose Put returned before List was called is listed, unless it
	// is deleted meanwhile. An object that is created or deleted during the call
	// may be listed or not. Names in the store that are not valid keys are not
	// listed.
	List(ctx context.Context, prefix string) ([]Object, error)

	// Delete removes the object key durably. If key is missing, Delete returns
	// nil.
	Delete(ctx context.Context, key string) error

	// String returns the location of the store as a URL without credentials, for
	// errors, logs and status.
	String() string
}

// Object describes an object that exists.
type Object struct {
	Key     string
	Size    int64     // in bytes
	ModTime time.Time // time of creation by the store's clock, to the second or better
}

// ConditionalCreator is an optional interface of a [Backend]. A backend implements
// it if only a request to the store can show whether the store creates objects
// conditionally. A backend that does not implement it always does.
type ConditionalCreator interface {
	// ProbeConditionalCreate reports whether the store refuses to create an
	// object that exists, also one that Put writes in parts, and creates one of
	// several that are put at the same time, as Put needs to guarantee that
	// exactly one of concurrent Puts succeeds. A probe can miss that a store does
	// not. An error means that the store gave no answer. The probe may leave
	// small objects of its own in the backend.
	//
	// After ProbeConditionalCreate has returned false, the store is weak: Put, or
	// the store, checks whether the key exists before the object is published,
	// but two concurrent Puts may both return nil, and the object is that of
	// either. The operator must run one writer at a time.
	ProbeConditionalCreate(ctx context.Context) (bool, error)
}

// Sweeper is an optional interface of a [Backend] in which interrupted uploads
// leave data that is not an object but occupies storage.
type Sweeper interface {
	// Sweep removes the data of uploads that began more than olderThan ago, by
	// the store's clock, for keys that begin with one of prefixes. It returns the
	// number of uploads that it removed, even if it returns an error.
	//
	// A Put whose upload is removed fails and leaves no object. olderThan should
	// exceed the duration of the slowest Put, and prefixes should include none
	// that other programs write to.
	Sweep(ctx context.Context, olderThan time.Duration, prefixes ...string) (int, error)
}

// Local is an optional interface of a [Backend] whose store may be on the same
// machine as the data directory. Loss of the machine may lose such a backend too,
// so by default only snapshots are shipped to it, and no batches.
type Local interface {
	// IsLocal reports whether the store may be on the same machine.
	IsLocal() bool
}
