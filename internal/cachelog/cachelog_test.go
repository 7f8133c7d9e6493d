package cachelog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
)

func TestSubscribers(t *testing.T) {
	var s cachelog.Subscribers
	s.Refresh()
	calls := map[string]int{}
	s.Subscribe("snapshot/a", func() { calls["a"]++ })
	s.Subscribe("snapshot/b", func() {
		calls["b"]++
		if calls["b"] == 1 { // A refresh may run while a cache is created.
			s.Subscribe("linear/a", func() { calls["linear"]++ })
		}
	})
	s.Refresh()
	require.Equal(t, map[string]int{"a": 1, "b": 1}, calls)
	s.Refresh()
	require.Equal(t, map[string]int{"a": 2, "b": 2, "linear": 1}, calls)
}

func TestSubscribeTwice(t *testing.T) {
	var s cachelog.Subscribers
	refresh := func() {}
	s.Subscribe("snapshot/a", refresh)
	s.Subscribe("linear/a", refresh)
	require.PanicsWithValue(t, `xdswal: the store already has a cache "snapshot/a": use that one, or choose another name with xdscache.WithName`,
		func() { s.Subscribe("snapshot/a", refresh) })
	s.Refresh()
}
