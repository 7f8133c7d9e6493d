package xdswal

import (
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Hooks are callbacks about a store's work; each may be nil. They only observe. The
// goroutines that do the work call them, so they must be safe for concurrent use
// and return quickly. Package telemetry/prometheus has hooks that count.
type Hooks struct {
	// Journal reports commits and segments.
	Journal journal.Hooks
	// Compactor reports compactions, snapshots and what is shipped to the backend.
	Compactor compactor.Hooks
	// Replay reports restores.
	Replay replay.Hooks
	// Degraded is called with the error of the journal when it no longer takes
	// updates, and Recovered when it takes them again.
	Degraded  func(error)
	Recovered func()
	// CacheError is called with the error of an update by ClearSnapshot of a snapshot
	// cache, which cannot return one, and by SetResources of a linear cache, because
	// go-control-plane's returns none and its callers ignore it. The node is empty for a
	// linear cache.
	CacheError func(cache, node string, err error)
}

// JoinHooks returns hooks that call all the given hooks, in their order. A callback
// that none of them has is nil, and costs nothing.
func JoinHooks(hooks ...Hooks) Hooks { return hook.Join(hooks...) }
