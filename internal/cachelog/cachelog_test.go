package cachelog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
)

func TestSubscribers(t *testing.T) {
	var s cachelog.Subscribers
	require.NoError(t, s.Refresh(t.Context()))
	calls := map[string]int{}
	errA := errors.New("watches of a")
	s.Subscribe("snapshot/a", func(context.Context) error { calls["a"]++; return errA })
	s.Subscribe("snapshot/b", func(context.Context) error {
		calls["b"]++
		if calls["b"] == 1 { // A refresh may run while a cache is created.
			s.Subscribe("linear/a", func(context.Context) error { calls["linear"]++; return nil })
		}
		return nil
	})
	require.ErrorIs(t, s.Refresh(t.Context()), errA)
	require.Equal(t, map[string]int{"a": 1, "b": 1}, calls)
	require.ErrorIs(t, s.Refresh(t.Context()), errA)
	require.Equal(t, map[string]int{"a": 2, "b": 2, "linear": 1}, calls)
}

func TestSubscribeTwice(t *testing.T) {
	var s cachelog.Subscribers
	refresh := func(context.Context) error { return nil }
	s.Subscribe("snapshot/a", refresh)
	s.Subscribe("linear/a", refresh)
	require.PanicsWithValue(t, `xdswal: the store already has a cache "snapshot/a": use that one, or choose another name with xdscache.WithName`,
		func() { s.Subscribe("snapshot/a", refresh) })
	require.NoError(t, s.Refresh(t.Context()))
}
