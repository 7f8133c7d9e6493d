package sloghooks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/shipper"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/telemetry/sloghooks"
)

var errTest = errors.New("test")

// record is what was logged.
type record struct {
	level slog.Level
	msg   string
	attrs map[string]any
}

// capture is a handler that keeps what is logged.
type capture struct {
	level slog.Level

	mu      sync.Mutex
	records []record
}

func (c *capture) Enabled(_ context.Context, level slog.Level) bool { return level >= c.level }

func (c *capture) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]any{}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.Any()
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = append(c.records, record{r.Level, r.Message, attrs})
	return nil
}

func (c *capture) WithAttrs([]slog.Attr) slog.Handler { panic("not used") }
func (c *capture) WithGroup(string) slog.Handler      { panic("not used") }

// messages returns the messages at a level.
func (c *capture) messages(level slog.Level) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, r := range c.records {
		if r.level == level {
			out = append(out, r.msg)
		}
	}
	return out
}

func TestHooks(t *testing.T) {
	begun := snapshot.Info{Location: "/data/snapshots", Name: "n", Sequence: 7, Nodes: 2, Resources: 5, ResourceBytes: 600}
	done := begun
	done.Bytes, done.Duration = 100, time.Second
	shipped := snapshot.Info{Location: "s3://bucket", Name: "n", Sequence: 7, Bytes: 100, Duration: time.Second, Err: errTest}
	tests := []struct {
		name string
		work func(xdswal.Hooks)
		want record
	}{
		{"commit", func(h xdswal.Hooks) {
			h.Journal.Commit(journal.CommitInfo{First: 3, Last: 5, Events: 3, Bytes: 30, Duration: time.Second})
		}, record{slog.LevelDebug, "journal commit finished", map[string]any{
			"first_sequence": uint64(3), "last_sequence": uint64(5), "events": int64(3), "bytes": int64(30), "duration": time.Second,
		}}},
		{"failed commit", func(h xdswal.Hooks) {
			h.Journal.Commit(journal.CommitInfo{First: 3, Last: 5, Events: 3, Bytes: 30, Duration: time.Second, Err: errTest})
		}, record{slog.LevelDebug, "journal commit failed", map[string]any{
			"error": errTest, "first_sequence": uint64(3), "last_sequence": uint64(5), "events": int64(3), "bytes": int64(30), "duration": time.Second,
		}}},
		{"segment created", func(h xdswal.Hooks) {
			h.Journal.SegmentCreated(journal.SegmentInfo{Path: "p", First: 3})
		}, record{slog.LevelDebug, "journal segment created", map[string]any{"path": "p", "first_sequence": uint64(3)}}},
		{"segment dropped", func(h xdswal.Hooks) {
			h.Journal.SegmentDropped(journal.SegmentInfo{Path: "p", First: 3})
		}, record{slog.LevelDebug, "journal segment dropped", map[string]any{"path": "p", "first_sequence": uint64(3)}}},
		{"compaction started", func(h xdswal.Hooks) {
			h.Compactor.CompactionStart(compactor.CompactionInfo{Reason: compactor.ReasonTail, Sequence: 7})
		}, record{slog.LevelDebug, "compaction started", map[string]any{"reason": "tail", "sequence": uint64(7), "unchanged": false}}},
		{"compaction finished", func(h xdswal.Hooks) {
			h.Compactor.CompactionStop(compactor.CompactionInfo{Reason: compactor.ReasonTail, Sequence: 7, Duration: time.Second})
		}, record{slog.LevelInfo, "compaction finished", map[string]any{"reason": "tail", "sequence": uint64(7), "unchanged": false, "duration": time.Second}}},
		{"nothing to compact", func(h xdswal.Hooks) {
			h.Compactor.CompactionStop(compactor.CompactionInfo{Reason: compactor.ReasonInterval, Sequence: 7, Unchanged: true, Duration: time.Second})
		}, record{slog.LevelDebug, "compaction finished", map[string]any{"reason": "interval", "sequence": uint64(7), "unchanged": true, "duration": time.Second}}},
		{"compaction failed", func(h xdswal.Hooks) {
			h.Compactor.CompactionException(compactor.CompactionInfo{Reason: compactor.ReasonClose, Sequence: 7, Duration: time.Second, Err: errTest})
		}, record{slog.LevelError, "compaction failed", map[string]any{"error": errTest, "reason": "close", "sequence": uint64(7), "unchanged": false, "duration": time.Second}}},
		{"snapshot write started", func(h xdswal.Hooks) {
			h.Compactor.SnapshotWriteStart(begun)
		}, record{slog.LevelDebug, "snapshot write started", map[string]any{
			"location": "/data/snapshots", "name": "n", "sequence": uint64(7), "nodes": int64(2), "resources": int64(5), "resource_bytes": int64(600),
		}}},
		{"snapshot write finished", func(h xdswal.Hooks) {
			h.Compactor.SnapshotWriteStop(done)
		}, record{slog.LevelInfo, "snapshot write finished", map[string]any{
			"location": "/data/snapshots", "name": "n", "sequence": uint64(7), "nodes": int64(2), "resources": int64(5), "resource_bytes": int64(600),
			"bytes": int64(100), "duration": time.Second,
		}}},
		{"snapshot write failed", func(h xdswal.Hooks) {
			h.Compactor.SnapshotWriteException(shipped)
		}, record{slog.LevelError, "snapshot write failed", map[string]any{
			"error": errTest, "location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100), "duration": time.Second,
		}}},
		{"snapshot deleted", func(h xdswal.Hooks) {
			h.Compactor.SnapshotDeleted(snapshot.Info{Location: "s3://bucket", Name: "n", Sequence: 7, Bytes: 100})
		}, record{slog.LevelDebug, "snapshot deleted", map[string]any{"location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100)}}},
		{"shipped snapshot write started", func(h xdswal.Hooks) {
			h.Shipper.SnapshotWriteStart(snapshot.Info{Location: "s3://bucket", Name: "n", Sequence: 7, Bytes: 100})
		}, record{slog.LevelDebug, "snapshot write started", map[string]any{"location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100)}}},
		{"shipped snapshot write finished", func(h xdswal.Hooks) {
			h.Shipper.SnapshotWriteStop(snapshot.Info{Location: "s3://bucket", Name: "n", Sequence: 7, Bytes: 100, Duration: time.Second})
		}, record{slog.LevelInfo, "snapshot write finished", map[string]any{
			"location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100), "duration": time.Second,
		}}},
		{"shipped snapshot write failed", func(h xdswal.Hooks) {
			h.Shipper.SnapshotWriteException(shipped)
		}, record{slog.LevelError, "snapshot write failed", map[string]any{
			"error": errTest, "location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100), "duration": time.Second,
		}}},
		{"batch write started", func(h xdswal.Hooks) {
			h.Shipper.BatchWriteStart(shipper.BatchInfo{Location: "s3://bucket", Name: "b", First: 3, Last: 5, Bytes: 30})
		}, record{slog.LevelDebug, "batch write started", map[string]any{
			"location": "s3://bucket", "name": "b", "first_sequence": uint64(3), "last_sequence": uint64(5), "bytes": int64(30),
		}}},
		{"batch write finished", func(h xdswal.Hooks) {
			h.Shipper.BatchWriteStop(shipper.BatchInfo{Location: "s3://bucket", Name: "b", First: 3, Last: 5, Bytes: 30, Duration: time.Second})
		}, record{slog.LevelDebug, "batch write finished", map[string]any{
			"location": "s3://bucket", "name": "b", "first_sequence": uint64(3), "last_sequence": uint64(5), "bytes": int64(30), "duration": time.Second,
		}}},
		{"batch write failed", func(h xdswal.Hooks) {
			h.Shipper.BatchWriteException(shipper.BatchInfo{Location: "s3://bucket", Name: "b", First: 3, Last: 5, Bytes: 30, Duration: time.Second, Err: errTest})
		}, record{slog.LevelWarn, "batch write failed", map[string]any{
			"error": errTest, "location": "s3://bucket", "name": "b", "first_sequence": uint64(3), "last_sequence": uint64(5), "bytes": int64(30), "duration": time.Second,
		}}},
		{"batch deleted", func(h xdswal.Hooks) {
			h.Shipper.BatchDeleted(shipper.BatchInfo{Location: "s3://bucket", Name: "b", First: 3, Bytes: 30})
		}, record{slog.LevelDebug, "batch deleted", map[string]any{"location": "s3://bucket", "name": "b", "first_sequence": uint64(3), "bytes": int64(30)}}},
		{"epoch claimed", func(h xdswal.Hooks) {
			h.Shipper.Claimed(catalog.Epoch{Number: 4, Parent: 2, Sequence: 7, Token: "t"})
		}, record{slog.LevelInfo, "epoch claimed", map[string]any{"epoch": uint64(4), "parent": uint64(2), "sequence": uint64(7)}}},
		{"fenced", func(h xdswal.Hooks) {
			h.Shipper.Fenced(errTest)
		}, record{slog.LevelError, "fenced", map[string]any{"error": errTest}}},
		{"snapshot read started", func(h xdswal.Hooks) {
			h.Replay.SnapshotReadStart(snapshot.Info{Location: "l", Name: "n", Sequence: 7, Bytes: 100})
		}, record{slog.LevelDebug, "snapshot read started", map[string]any{"location": "l", "name": "n", "sequence": uint64(7), "bytes": int64(100)}}},
		{"snapshot read finished", func(h xdswal.Hooks) {
			h.Replay.SnapshotReadStop(done)
		}, record{slog.LevelInfo, "snapshot read finished", map[string]any{
			"location": "/data/snapshots", "name": "n", "sequence": uint64(7), "nodes": int64(2), "resources": int64(5), "resource_bytes": int64(600),
			"bytes": int64(100), "duration": time.Second,
		}}},
		{"snapshot read failed", func(h xdswal.Hooks) {
			h.Replay.SnapshotReadException(shipped)
		}, record{slog.LevelError, "snapshot read failed", map[string]any{
			"error": errTest, "location": "s3://bucket", "name": "n", "sequence": uint64(7), "bytes": int64(100), "duration": time.Second,
		}}},
		{"replay started", func(h xdswal.Hooks) {
			h.Replay.ReplayStart(replay.Result{})
		}, record{slog.LevelDebug, "replay started", map[string]any{}}},
		{"replay finished", func(h xdswal.Hooks) {
			h.Replay.ReplayStop(replay.Result{
				Source: "/data/snapshots", Snapshot: "n", Sequence: 9, Events: 2, Shipped: 1, Nodes: 2, Resources: 5, Bytes: 600,
				Skipped: make([]replay.Skipped, 1), Duration: time.Second,
			})
		}, record{slog.LevelInfo, "replay finished", map[string]any{
			"source": "/data/snapshots", "snapshot": "n", "sequence": uint64(9), "events": int64(2), "shipped": int64(1), "nodes": int64(2), "resources": int64(5),
			"resource_bytes": int64(600), "skipped_snapshots": int64(1), "duration": time.Second,
		}}},
		{"replay failed", func(h xdswal.Hooks) {
			h.Replay.ReplayException(replay.Result{Duration: time.Second, Err: errTest})
		}, record{slog.LevelError, "replay failed", map[string]any{
			"error": errTest, "source": "", "snapshot": "", "sequence": uint64(0), "events": int64(0), "shipped": int64(0), "nodes": int64(0), "resources": int64(0),
			"resource_bytes": int64(0), "skipped_snapshots": int64(0), "duration": time.Second,
		}}},
		{"degraded", func(h xdswal.Hooks) {
			h.Degraded(errTest)
		}, record{slog.LevelError, "degraded", map[string]any{"error": errTest}}},
		{"recovered", func(h xdswal.Hooks) {
			h.Recovered()
		}, record{slog.LevelInfo, "recovered", map[string]any{}}},
		{"update failed", func(h xdswal.Hooks) {
			h.CacheError("c", "n", errTest)
		}, record{slog.LevelError, "cache update failed", map[string]any{"error": errTest, "cache": "c", "node": "n"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := &capture{level: slog.LevelDebug}
			tt.work(sloghooks.New(slog.New(log)))
			assert.Equal(t, []record{tt.want}, log.records)
		})
	}
}

// Every callback logs one record, one that is added later too. Progress alone
// comes too often for any level.
func TestAllHooks(t *testing.T) {
	log := &capture{level: slog.LevelDebug}
	var each func(hooks reflect.Value, path string)
	each = func(hooks reflect.Value, path string) {
		for i := range hooks.NumField() {
			callback, name := hooks.Field(i), path+"."+hooks.Type().Field(i).Name
			if callback.Kind() == reflect.Struct {
				each(callback, name)
				continue
			}
			if name == "Hooks.Replay.Progress" {
				assert.True(t, callback.IsNil())
				continue
			}
			if !assert.False(t, callback.IsNil(), name) {
				continue
			}
			var args []reflect.Value
			for i := range callback.Type().NumIn() {
				args = append(args, reflect.Zero(callback.Type().In(i)))
			}
			log.records = nil
			callback.Call(args)
			assert.Len(t, log.records, 1, name)
		}
	}
	each(reflect.ValueOf(sloghooks.New(slog.New(log))), "Hooks")
}

// What comes with every update costs nothing while nobody reads it.
func TestCommitAllocatesNothingAboveDebug(t *testing.T) {
	h := sloghooks.New(slog.New(&capture{level: slog.LevelInfo}))
	info := journal.CommitInfo{First: 1, Last: 1, Events: 1, Bytes: 10, Duration: time.Second}
	assert.Zero(t, testing.AllocsPerRun(100, func() { h.Journal.Commit(info) }))
}

func TestStore(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	open := func() (*xdswal.Store, *capture) {
		log := &capture{level: slog.LevelDebug}
		s, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: sloghooks.New(slog.New(log))})
		require.NoError(t, err)
		return s, log
	}
	s, log := open()
	require.NoError(t, s.LinearCache(resourcev3.ClusterType).UpdateResource("name-of-it", &clusterv3.Cluster{Name: "name-of-it", AltStatName: "body-of-it"}))
	require.NoError(t, s.Close(ctx))
	assert.Equal(t, []string{"replay finished", "snapshot write finished", "compaction finished"}, log.messages(slog.LevelInfo))
	assert.Equal(t, []string{"replay started", "journal segment created", "journal commit finished", "compaction started", "snapshot write started"}, log.messages(slog.LevelDebug))
	assert.Empty(t, log.messages(slog.LevelError))
	assert.NotContains(t, fmt.Sprint(log.records), "-of-it")

	// A start and an end without a change between them.
	s, log = open()
	require.NoError(t, s.Close(ctx))
	assert.Equal(t, []string{"snapshot read finished", "replay finished"}, log.messages(slog.LevelInfo))
}
