package s3_test

import (
	"bytes"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/s3test"
)

const probeKey = "probe/conditional-create"

func TestProbe(t *testing.T) {
	srv := start(t)
	var counter s3test.Counter
	cfg := config(srv)
	cfg.WrapTransport, cfg.MaxAttempts = counter.Wrap, 2
	b := open(t, cfg)
	for _, want := range []int{15, 14} { // 12 of them by the races, and one of a part
		counter.Reset()
		ok, err := b.ProbeConditionalCreate(t.Context())
		require.NoError(t, err)
		require.True(t, ok)
		require.Empty(t, b.Weakness())
		require.Equal(t, map[string]int{"PUT": want, "POST": 2, "DELETE": 4}, counter.Requests())
	}
	require.Equal(t, []string{probeKey}, keys(t, b))

	srv.Stop()
	_, err := b.ProbeConditionalCreate(t.Context())
	var placed *backends.Error
	require.ErrorAs(t, err, &placed)
	require.Equal(t, probeKey, placed.Key)
	srv.Restart()
}

// In a store without conditions Put checks whether the key exists.
func TestStoreWithoutConditions(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"ignores": nil,
		"refuses": func(w http.ResponseWriter, req *http.Request) bool {
			if req.Header.Get("If-None-Match") == "" {
				return false
			}
			refuse(w, http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented")
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, (&fakeStore{answer: answer}).start(t))
			if name == "refuses" {
				err := b.Put(t.Context(), "k", body("x"))
				require.ErrorContains(t, err, "possibly conditional creation (If-None-Match)")
			}
			ok, err := b.ProbeConditionalCreate(t.Context())
			require.NoError(t, err)
			require.False(t, ok)
			require.Contains(t, b.Weakness(), "If-None-Match")

			put(t, b, "k", []byte("first"))
			require.ErrorIs(t, b.Put(t.Context(), "k", body("second")), backends.ErrExists)
			requireContent(t, b, "k", []byte("first"))
		})
	}
}

// A store that looks for the object and creates it later passes a sequential probe. It is
// found by a race.
func TestStoreNotAtomic(t *testing.T) {
	b := open(t, (&fakeStore{conditions: true, partConditions: true, window: 10 * time.Millisecond}).start(t))
	ok, err := b.ProbeConditionalCreate(t.Context())
	require.NoError(t, err)
	require.False(t, ok)
	require.Contains(t, b.Weakness(), "of 4 simultaneous creations of one object")
	put(t, b, "k", []byte("first"))
	require.ErrorIs(t, b.Put(t.Context(), "k", body("second")), backends.ErrExists)
}

// A store that replaces an object when a multipart upload completes is found, and a large
// Put checks whether the key exists: before it sends anything, and before it completes.
func TestStoreReplacesInParts(t *testing.T) {
	store := &fakeStore{conditions: true}
	b := open(t, store.start(t))
	large := noise(partSize + 1)
	put(t, b, "before", large)
	ok, err := b.ProbeConditionalCreate(t.Context())
	require.NoError(t, err)
	require.False(t, ok)
	require.Equal(t, "it replaces objects of more than 5242880 bytes when a multipart upload completes", b.Weakness())

	require.ErrorIs(t, b.Put(t.Context(), "before", bytes.NewReader(large[1:])), backends.ErrExists)
	var once sync.Once
	err = b.Put(t.Context(), "meanwhile", &brokenBody{Reader: bytes.NewReader(large), at: partSize / 2, broken: func() error {
		once.Do(func() { put(t, b, "meanwhile", []byte("first")) })
		return nil
	}})
	require.ErrorIs(t, err, backends.ErrExists)
	require.NotContains(t, err.Error(), "upload multipart failed")
	requireContent(t, b, "meanwhile", []byte("first"))
	require.Empty(t, store.parts, "the upload was aborted")
	put(t, b, "new", large)
	requireContent(t, b, "new", large)
}

// How a store refuses to complete an upload, and what the probe makes of that.
func TestProbeInParts(t *testing.T) {
	for _, c := range []struct {
		status         int
		code, weakness string
	}{
		{http.StatusPreconditionFailed, "PreconditionFailed", ""},
		{http.StatusConflict, "ConditionalRequestConflict", ""},
		{http.StatusNotModified, "", ""}, // S3Mock
		{http.StatusNotImplemented, "NotImplemented", "it is not known whether it replaces objects of more than 5242880 bytes: NotImplemented"},
		{http.StatusBadRequest, "EntityTooSmall", "it is not known whether it replaces objects of more than 5242880 bytes: EntityTooSmall"},
	} {
		store := &fakeStore{conditions: true, answer: func(w http.ResponseWriter, req *http.Request) bool {
			complete := req.Method == http.MethodPost && req.URL.Query().Has("uploadId")
			if complete && c.code == "" {
				w.WriteHeader(c.status)
			} else if complete {
				refuse(w, c.status, c.code, "no")
			}
			return complete
		}}
		b := open(t, store.start(t))
		ok, err := b.ProbeConditionalCreate(t.Context())
		require.NoError(t, err)
		require.Equal(t, c.weakness == "", ok)
		require.Contains(t, b.Weakness(), c.weakness)
		require.Empty(t, store.parts)
	}
}

// A Put that conflicts with another writer of the key is retried.
func TestConflict(t *testing.T) {
	var conflicts atomic.Int32
	store := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPut || conflicts.Add(1) > 1 {
			return false
		}
		refuse(w, http.StatusConflict, "ConditionalRequestConflict", "Try again")
		return true
	}}
	b := open(t, store.start(t))
	put(t, b, "k", []byte("content"))
	require.EqualValues(t, 2, conflicts.Load())
	requireContent(t, b, "k", []byte("content"))
}

// The error names the permission that is missing to determine whether a Put succeeded.
func TestTakenAndUnreadable(t *testing.T) {
	store := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodPut {
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "It exists")
		} else {
			refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		}
		return true
	}}
	b := open(t, store.start(t))
	err := b.Put(t.Context(), "k", body("x"))
	require.ErrorContains(t, err, "grant s3:GetObject")
	// The outcome is open, so the error must match neither.
	require.False(t, errors.Is(err, backends.ErrExists))
	require.False(t, errors.Is(err, backends.ErrPermission))
}
