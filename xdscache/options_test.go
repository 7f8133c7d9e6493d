package xdscache_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/log"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/xdscache"
)

// An option that a kind of cache does not have does not compile for it.
func TestOptionKinds(t *testing.T) {
	for _, row := range []struct {
		name             string
		option           any
		snapshot, linear bool
	}{
		{"WithName", xdscache.WithName, true, true},
		{"WithImmutableMessages", xdscache.WithImmutableMessages, true, true},
		{"WithTypeURLs", xdscache.WithTypeURLs, true, false},
		{"WithHeartbeat", xdscache.WithHeartbeat, true, false},
		{"WithLogger", xdscache.WithLogger, false, true},
	} {
		result := reflect.TypeOf(row.option).Out(0)
		require.Equal(t, row.snapshot, result.Implements(reflect.TypeFor[xdscache.SnapshotOption]()), row.name)
		require.Equal(t, row.linear, result.Implements(reflect.TypeFor[xdscache.LinearOption]()), row.name)
	}
}

func TestInvalidArgumentsPanic(t *testing.T) {
	var noContext context.Context
	linear := func(url string) func() {
		return func() { xdscache.NewLinearCache(newLog(t), cachelog.Config{}, url) }
	}
	for _, row := range []struct {
		name string
		call func()
		want string
	}{
		{"name not UTF-8", func() { xdscache.WithName("\xff") }, `xdscache: cache name "\xff" is not valid UTF-8 or contains a zero byte`},
		{"name with a zero byte", func() { xdscache.WithName("a\x00b") }, `xdscache: cache name "a\x00b" is not valid UTF-8 or contains a zero byte`},
		{"type URL empty", func() { xdscache.WithTypeURLs(durationURL, "") }, `xdscache: type URL "" is empty, is not valid UTF-8, or contains a zero byte`},
		{"type URL not UTF-8", func() { xdscache.WithTypeURLs("\xff") }, `xdscache: type URL "\xff" is empty, is not valid UTF-8, or contains a zero byte`},
		{"type URL of a linear cache empty", linear(""), `xdscache: type URL "" is empty, is not valid UTF-8, or contains a zero byte`},
		{"type URL of a linear cache with a zero byte", linear("a\x00b"), `xdscache: type URL "a\x00b" is empty, is not valid UTF-8, or contains a zero byte`},
		{"heartbeat negative", func() { xdscache.WithHeartbeat(t.Context(), -time.Second) }, "xdscache: heartbeat interval is -1s, want more than 0; omit WithHeartbeat to send no heartbeats"},
		{"heartbeat 0", func() { xdscache.WithHeartbeat(t.Context(), 0) }, "xdscache: heartbeat interval is 0s, want more than 0; omit WithHeartbeat to send no heartbeats"},
		{"heartbeat without a context", func() { xdscache.WithHeartbeat(noContext, time.Second) }, "xdscache: heartbeat context is nil"},
	} {
		t.Run(row.name, func(t *testing.T) { require.PanicsWithValue(t, row.want, row.call) })
	}
}

func TestWithLogger(t *testing.T) {
	l := newLog(t)
	var lines int
	logger := log.LoggerFuncs{DebugFunc: func(string, ...any) { lines++ }}
	c := newLinear(l, xdscache.WithLogger(logger))
	require.NoError(t, c.UpdateResource("a", cluster("a")))
	receive(t, linearWatch(t, c, ""))
	require.Positive(t, lines)
	c = newLinear(l, xdscache.WithLogger(nil))
	require.Equal(t, resourcev3.ClusterType, c.Name())
	receive(t, linearWatch(t, c, ""))
	requireLinear(t, l, c)
}
