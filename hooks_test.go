package xdswal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcplog "github.com/envoyproxy/go-control-plane/pkg/log"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// recorder records the calls of hooks by name.
type recorder struct {
	mu    sync.Mutex
	calls []string
	text  bytes.Buffer // names and arguments of the calls
}

func (d *recorder) record(name string, v any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name)
	fmt.Fprintf(&d.text, "%s %+v\n", name, v)
}

func (d *recorder) count(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, call := range d.calls {
		if call == name {
			n++
		}
	}
	return n
}

// names returns the distinct names.
func (d *recorder) names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.calls)
	slices.Sort(out)
	return slices.Compact(out)
}

func (d *recorder) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(b)
}

func (d *recorder) contents() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

func recordTo[T any](d *recorder, name string) func(T) { return func(v T) { d.record(name, v) } }

// end records the end of a span as a stop or as an exception: hooks distinguish the three
// events of a telemetry span.
func (d *recorder) end(name string, err error, v any) {
	if err != nil {
		d.record(name+" exception", v)
		return
	}
	d.record(name+" stop", v)
}

func verb(s compactor.Snapshot) string {
	if s.Backend {
		return "ship"
	}
	return "write"
}

func (d *recorder) hooks() xdswal.Hooks {
	return xdswal.Hooks{
		Journal: journal.Hooks{
			Commit:         recordTo[journal.Commit](d, "commit"),
			SegmentCreated: recordTo[journal.Segment](d, "segment created"),
			SegmentDropped: recordTo[journal.Segment](d, "segment dropped"),
		},
		Compactor: compactor.Hooks{
			CompactionBegin:    recordTo[compactor.Compaction](d, "compaction start"),
			CompactionEnd:      func(c compactor.Compaction) { d.end("compaction", c.Err, c) },
			SnapshotWriteBegin: func(s compactor.Snapshot) { d.record(verb(s)+" start", s) },
			SnapshotWriteEnd:   func(s compactor.Snapshot) { d.end(verb(s), s.Err, s) },
			SnapshotDeleted: func(s compactor.Snapshot) {
				name := "snapshot deleted"
				if s.Backend {
					name = "shipped snapshot deleted"
				}
				d.record(name, s)
			},
			BatchWriteBegin: recordTo[compactor.Batch](d, "batch start"),
			BatchWriteEnd:   func(b compactor.Batch) { d.end("batch", b.Err, b) },
			BatchDeleted:    recordTo[compactor.Batch](d, "batch deleted"),
			Claimed:         recordTo[uint64](d, "claimed"),
			Fenced:          recordTo[error](d, "fenced"),
		},
		Replay: replay.Hooks{
			SnapshotReadBegin: recordTo[compactor.Snapshot](d, "read start"),
			SnapshotReadEnd:   func(s compactor.Snapshot) { d.end("read", s.Err, s) },
			RestoreBegin:      func() { d.record("replay start", nil) },
			RestoreEnd:        func(r replay.Result) { d.end("replay", r.Err, r) },
		},
		Degraded:   func(err error) { d.record("degraded", err) },
		Recovered:  func() { d.record("recovered", nil) },
		CacheError: func(cache, node string, err error) { d.record("cache error", err) },
	}
}

func TestHooks(t *testing.T) {
	ctx := context.Background()
	backend, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	var d recorder
	opt := xdswal.Options{
		Dir: t.TempDir(), Backend: backend, ShipInterval: time.Millisecond, Hooks: d.hooks(),
		KeepSnapshots: 2, KeepFor: xdswal.Off, MaxJournalBytes: 16 * small,
	}
	s := openStore(t, opt)
	for i := range 6 {
		set(t, snapshotCache(s), "n", bulk(i))
		_, err := s.Compact(ctx)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			// Close would cancel a batch that the snapshot covers.
			return s.Status().Shipper.Snapshot == s.Status().Sequence && d.count("batch stop") == i+1
		}, timeout, time.Millisecond)
	}
	closeStore(t, s)
	snapshotCache(s).ClearSnapshot("n")
	require.Equal(t, []string{
		"batch deleted", "batch start", "batch stop", "cache error", "claimed", "commit", "compaction start", "compaction stop",
		"replay start", "replay stop", "segment created", "segment dropped", "ship start", "ship stop", "shipped snapshot deleted",
		"snapshot deleted", "write start", "write stop",
	}, d.names(), "%s", d.contents())
	require.Equal(t, 6, d.count("commit"))
	require.Equal(t, 7, d.count("compaction stop"))
	require.Equal(t, 6, d.count("write stop"))
	require.Equal(t, 6, d.count("ship stop"))
	require.Equal(t, 6, d.count("batch stop"))
	require.Equal(t, d.count("write start"), d.count("write stop"))

	d = recorder{}
	opt.Hooks = d.hooks()
	s = openStore(t, opt)
	require.Equal(t, 1, d.count("replay stop"))
	require.Equal(t, 1, d.count("read start"))
	require.Equal(t, 1, d.count("read stop"))
	requireSound(t, s)
}

// capture returns a go-control-plane logger that writes to a recorder.
func capture(d *recorder) gcplog.Logger {
	print := func(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }
	return gcplog.LoggerFuncs{DebugFunc: print, InfoFunc: print, WarnFunc: print, ErrorFunc: print}
}

// The body of a resource is in no log line, no hook and no error.
func TestNoContentsInLogsAndErrors(t *testing.T) {
	const secret = "the private key"
	ctx := context.Background()
	var d recorder
	fail := func(what string, err error) {
		t.Helper()
		require.Error(t, err, what)
		d.record("error of "+what, err)
		for ; err != nil; err = errors.Unwrap(err) {
			d.record("cause", err)
		}
	}
	secrets := func(version string, bad bool) *cachev3.Snapshot {
		value := secret + version
		if bad {
			value += "\xff"
		}
		s, err := cachev3.NewSnapshot(version, map[string][]types.Resource{resourcev3.SecretType: {
			&tlsv3.Secret{Name: "tls", Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
				Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: value}},
			}}},
		}})
		require.NoError(t, err)
		return s
	}
	opt := xdswal.Options{
		Dir: t.TempDir(), MaxJournalBytes: 2 * small, KeepSnapshots: 2, KeepFor: xdswal.Off, Hooks: d.hooks(),
		Logger: slog.New(slog.NewJSONHandler(&d, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	s := openStore(t, opt)
	c := s.SnapshotCache(false, cachev3.IDHash{}, capture(&d))
	w, _ := watch(t, c, "n", resourcev3.SecretType, "")
	set(t, c, "n", secrets("1", false))
	receive(t, w)
	_, err := s.Compact(ctx)
	require.NoError(t, err)
	fail("a resource that does not marshal", c.SetSnapshot(ctx, "n", secrets("2", true)))
	linear := s.LinearCache(resourcev3.SecretType)
	linear.SetResources(map[string]types.Resource{"tls": secrets("2", true).GetResources(resourcev3.SecretType)["tls"]})
	for i := 3; err == nil; i++ {
		err = c.SetSnapshot(ctx, "n", secrets(fmt.Sprint(i), false))
		if i > 10_000 {
			require.FailNow(t, "the journal does not fill")
		}
	}
	fail("a full journal", err)
	d.record("status", s.Status())
	_ = s.Close(ctx)
	fail("a closed store", c.SetSnapshot(ctx, "n", secrets("last", false)))
	c.ClearSnapshot("n")
	snapshots, err := filepath.Glob(filepath.Join(opt.Dir, "snapshots", "*.zst"))
	require.NoError(t, err)
	require.NotEmpty(t, snapshots)
	for _, path := range snapshots {
		require.NoError(t, os.Truncate(path, 100))
	}
	s, err = xdswal.Open(ctx, opt)
	if err == nil {
		// The journal still contains all events.
		d.record("status", s.Status())
		requireServed(t, s)
		closeStore(t, s)
	} else {
		fail("damaged snapshots", err)
	}
	require.Contains(t, d.contents(), "snapshot")
	require.NotContains(t, d.contents(), secret)
}
