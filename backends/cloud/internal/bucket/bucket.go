// Package bucket implements backends.Backend on the object store of a vendor. It has
// what the stores share: keys, ranges, checksums, and errors with advice. A driver has
// the requests of its vendor; see [Store].
package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/xdswal/xdswal/backends"
)

// Store is the object store of a vendor. Its methods take names in the bucket, and
// return the errors of the SDK as they are, except those of this package. They make a
// bounded number of attempts.
type Store interface {
	// Create creates an object whole, on the condition that it is missing. It may
	// send the body again.
	Create(ctx context.Context, name string, u *Upload) error
	// Open returns the bytes [offset, offset+length), or to the end if length is
	// negative. length is not 0. Reads after a broken connection must return the
	// bytes of the same object.
	Open(ctx context.Context, name string, offset, length int64) (*Object, error)
	// Stat describes an object.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls each with the objects whose names begin with prefix.
	List(ctx context.Context, prefix string, each func(Info)) error
	// Delete deletes an object.
	Delete(ctx context.Context, name string) error
	// NewHash returns the hash of whose sum the store keeps one with an object.
	NewHash() hash.Hash
	// Answer returns the meaning of an error of an operation, or nil for one that
	// is not of the store, such as a broken connection.
	Answer(op string, err error) *Answer
}

// Errors that an [Answer] wraps, besides those of package backends.
var (
	// ErrTaken means that the condition of a Create was not met.
	ErrTaken = errors.New("the store refused the condition")
	// ErrRange is the answer to a range that begins at or after the end.
	ErrRange = errors.New("the range begins at or after the end")
)

// Upload is an object that is created.
type Upload struct {
	Size int64
	Sum  []byte // of Store.NewHash
	// ID identifies the Put that creates the object. The store keeps it as metadata.
	ID string
	b  *body
}

// Body returns the body from its beginning. Its earlier results must not be read any
// more.
func (u *Upload) Body() (io.Reader, error) {
	if err := u.b.rewind(); err != nil {
		return nil, err
	}
	return u.b, nil
}

// Object is an object that is read.
type Object struct {
	Body   io.ReadCloser
	Offset int64  // of the first byte of Body
	Size   int64  // of the whole object
	Sum    []byte // of the whole object, by Store.NewHash; nil if it is not known
}

// Info describes an object.
type Info struct {
	Name    string
	Size    int64
	ModTime time.Time
	ID      string // of its Put; List may omit it
}

// Backend implements [backends.Backend].
type Backend struct {
	cfg      Config // with defaults
	store    Store
	location string
}

var _ backends.Backend = (*Backend)(nil)

// New returns a backend for cfg, which has been checked, at a location.
func New(cfg Config, store Store, location string) *Backend {
	return &Backend{cfg: cfg, store: store, location: location}
}

// String implements [backends.Backend].
func (b *Backend) String() string { return b.location }

// name returns the name in the bucket for a key or for a prefix of keys.
func (b *Backend) name(key string) string {
	if b.cfg.Prefix == "" {
		return key
	}
	return b.cfg.Prefix + "/" + key
}

// begin makes the checks that are common to all methods with a key.
func (b *Backend) begin(ctx context.Context, op, key string) error {
	err := ctx.Err()
	if err == nil {
		err = backends.ValidKey(key)
	}
	if err == nil && op != "get" && b.cfg.ReadOnly {
		err = fmt.Errorf("%w: the backend is read-only", backends.ErrPermission)
	}
	if err != nil {
		return b.fail(ctx, op, key, err)
	}
	return nil
}

// Put implements [backends.Backend]. It reads body twice: first for its checksum,
// which the request contains. If an answer was lost and Put then finds that it created
// the object, it returns nil.
func (b *Backend) Put(ctx context.Context, key string, r io.ReadSeeker) error {
	if err := b.begin(ctx, "put", key); err != nil {
		return err
	}
	u := &Upload{ID: rand.Text(), b: &body{ctx: ctx, r: r, sum: b.store.NewHash()}}
	err := u.b.measure()
	if err == nil {
		u.Size, u.Sum = u.b.size, u.b.want
		err = b.store.Create(ctx, b.name(key), u)
	}
	if u.b.err != nil {
		// Not explained: an error of the body is not one of the store.
		return &backends.Error{Op: "put", Backend: b.location, Key: key, Err: fmt.Errorf("read body: %w", u.b.err)}
	}
	if err == nil {
		return nil
	}
	if a := b.store.Answer("put", err); a != nil && errors.Is(a.Is, ErrTaken) {
		err = b.resolve(ctx, b.name(key), u.ID)
	}
	if err == nil {
		return nil
	}
	return b.fail(ctx, "put", key, err)
}

// resolve determines the result of a Put that was refused because the object exists.
// An earlier request of the same Put, whose answer was lost, may have created it.
func (b *Backend) resolve(ctx context.Context, name, id string) error {
	info, err := b.store.Stat(ctx, name)
	switch err := b.explain(ctx, "get", err); {
	case err == nil && info.ID == id:
		return nil
	case err == nil, errors.Is(err, backends.ErrNotFound): // deleted since
		return backends.ErrExists
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		// err is not wrapped, because it is not the error of the Put.
		return fmt.Errorf("%w; checking whether this call created the object: %v", ErrTaken, err) //nolint:errorlint // As said.
	}
}

// List implements [backends.Backend].
func (b *Backend) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.fail(ctx, "list", prefix, err)
	}
	// No valid key begins with any other.
	if prefix != "" && backends.ValidKey(prefix) != nil && backends.ValidKey(prefix+"x") != nil {
		return nil, nil
	}
	var objects []backends.Object
	err := b.store.List(ctx, b.name(prefix), func(info Info) {
		key, ok := strings.CutPrefix(info.Name, b.name(""))
		if ok && strings.HasPrefix(key, prefix) && backends.ValidKey(key) == nil {
			objects = append(objects, backends.Object{Key: key, Size: info.Size, ModTime: info.ModTime})
		}
	})
	if err != nil {
		return nil, b.fail(ctx, "list", prefix, err)
	}
	// The order is not part of every store's contract.
	slices.SortFunc(objects, func(x, y backends.Object) int { return strings.Compare(x.Key, y.Key) })
	return objects, nil
}

// Delete implements [backends.Backend]. A store with versions or soft deletion keeps
// the object as it is configured to.
func (b *Backend) Delete(ctx context.Context, key string) error {
	if err := b.begin(ctx, "delete", key); err != nil {
		return err
	}
	if err := b.store.Delete(ctx, b.name(key)); err != nil {
		if err := b.fail(ctx, "delete", key, err); !errors.Is(err, backends.ErrNotFound) {
			return err
		}
	}
	return nil
}
