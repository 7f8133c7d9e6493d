package feed_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/feed"
)

func TestHub(t *testing.T) {
	var h feed.Hub
	var a, b, other atomic.Int64
	stopA := h.Watch("node", func() { a.Add(1) })
	stopB := h.Watch("node", func() { b.Add(1) })
	stopOther := h.Watch("other", func() { other.Add(1) })
	h.Wake("node")
	h.Wake("nobody watches it")
	h.WakeAll()
	require.EqualValues(t, []int64{2, 2, 1}, []int64{a.Load(), b.Load(), other.Load()})
	stopA()
	stopA()
	h.Wake("node")
	require.EqualValues(t, []int64{2, 3}, []int64{a.Load(), b.Load()})
	stopB()
	h.Wake("node")
	require.EqualValues(t, 3, b.Load())
	again := h.Watch("node", func() { a.Add(1) })
	h.Wake("node")
	require.EqualValues(t, 3, a.Load())
	again()
	stopOther()
}

// A watcher that is added while the last one leaves is woken.
func TestHubComingAndGoing(t *testing.T) {
	var h feed.Hub
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 2000 {
				var woken atomic.Bool
				stop := h.Watch("node", func() { woken.Store(true) })
				h.Wake("node")
				if !woken.Load() {
					t.Error("not woken")
				}
				stop()
			}
		}()
	}
	wg.Wait()
}
