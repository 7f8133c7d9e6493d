package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/e2e/internal/oracle"
)

const (
	// defaultKills is the number of kills of TestKillLoop.
	defaultKills = 50
	shortKills   = 10
	// writers is the number of concurrent writers, which share the nodes.
	writers   = 32
	loopNodes = 12
	// maxUpdates bounds the updates that return between two kills.
	maxUpdates = 1500
)

func killCount(t *testing.T) int {
	if text := os.Getenv("XDSWAL_E2E_KILLS"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err, "XDSWAL_E2E_KILLS")
		return n
	}
	if testing.Short() {
		return shortKills
	}
	return defaultKills
}

func loopSeed(t *testing.T) uint64 {
	if text := os.Getenv("XDSWAL_E2E_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "XDSWAL_E2E_SEED")
		return n
	}
	return rand.Uint64()
}

// TestKillLoop kills the daemon repeatedly while 32 writers update shared nodes and
// snapshots are written, and compares its contents after each restart with the oracle.
func TestKillLoop(t *testing.T) {
	kills := killCount(t)
	for _, tc := range []struct {
		sync  string
		kills int
	}{
		{"always", kills},
		// This policy also loses no returned update in a crash of the process.
		{"5ms", max(1, kills/4)},
	} {
		t.Run("sync="+tc.sync, func(t *testing.T) { runKillLoop(t, tc.sync, tc.kills) })
	}
}

func runKillLoop(t *testing.T, sync string, kills int) {
	seed := loopSeed(t)
	t.Logf("seed %d", seed)
	l := &killLoop{
		t: t, oracle: oracle.New(allTypes), rand: rand.New(rand.NewPCG(seed, 0)),
		// Frequent snapshots and short retention, so that a restart finds a snapshot
		// and a tail. The oracle must observe each event within 15 s.
		d: newDaemon(t, "--sync", sync, "--compact-interval", "150ms", "--keep-snapshots", "2", "--keep-for", "15s", "--log-level", "warn"),
	}
	start := time.Now()
	for l.kills < kills {
		l.round()
	}
	// Directly after the crash.
	verifyDir(t, l.d.dir)
	l.start()
	s := l.d.status()
	stats := l.oracle.Stats()
	t.Logf("%d kills, %d of them before it was ready and %d during a compaction; %d SIGTERMs; %d updates sent, %d returned, %d unanswered and durable, %d rejected; %d events, the journal has %d to %d; %d checks; %v",
		l.kills, l.early, l.compacting, l.terms, stats.Sent, stats.Returned, stats.Survived, stats.Rejected,
		stats.Events, s.Journal.First, s.Journal.Last, stats.Checks, time.Since(start).Round(time.Millisecond))
	l.d.terminate()
	l.clean = true
	verifyDir(t, l.d.dir)
	l.start()
	require.Positive(t, stats.Returned)
}

type killLoop struct {
	t      *testing.T
	d      *daemon
	oracle *oracle.Oracle
	rand   *rand.Rand // of the loop, not of the writers
	ids    atomic.Uint64

	kills, early, compacting, terms int
	clean                           bool          // the daemon was shut down, not killed
	startup                         time.Duration // of the last start
}

// round starts the daemon, checks it, and ends it during updates.
func (l *killLoop) round() {
	l.t.Helper()
	l.start()
	work := l.begin(1 + l.rand.IntN(maxUpdates))
	defer work.end()
	select {
	case <-work.enough:
	case <-l.d.exited:
		require.FailNow(l.t, "the daemon has ended by itself", "%v", l.d.err)
	case <-time.After(timeout):
		require.FailNow(l.t, "updates do not return", "%d have", work.returned.Load())
	}
	switch n := l.rand.IntN(10); {
	case n == 0:
		l.d.terminate()
		l.terms++
		l.clean = true
	case n < 4:
		go func() { _ = l.d.call(work.ctx, http.MethodPost, "/v1/compact", nil, nil) }()
		l.pause(5 * time.Millisecond)
		l.d.kill()
		l.compacting++
		l.kills++
	default:
		l.pause(time.Millisecond)
		l.d.kill()
		l.kills++
	}
}

// pause waits for a random time.
func (l *killLoop) pause(most time.Duration) { <-time.After(time.Duration(l.rand.Int64N(int64(most)))) }

// start starts the daemon, sometimes after starts that are killed, and checks its contents.
func (l *killLoop) start() {
	l.t.Helper()
	for l.startup > 0 && l.rand.IntN(6) == 0 {
		l.d.launch()
		l.pause(l.startup)
		l.d.kill()
		l.early++
		l.kills++
	}
	begin := time.Now()
	l.d.start()
	l.startup = time.Since(begin)
	s := l.d.status()
	if l.clean && s.Restored.Events != 0 {
		require.Fail(l.t, "events were replayed after a shutdown", "%+v", s.Restored)
	}
	l.clean = false
	require.Empty(l.t, s.Degraded)
	require.Empty(l.t, s.Restored.Skipped)
	require.NoError(l.t, l.observe(context.Background()))
	require.NoError(l.t, l.oracle.Check(l.view(s)), "after %d kills", l.kills)
}

// observe passes new events to the oracle.
func (l *killLoop) observe(ctx context.Context) error {
	for {
		var answer struct {
			Events []eventInfo
			Next   uint64
		}
		path := fmt.Sprintf("/v1/events?limit=10000&from=%d", l.oracle.Next())
		if err := l.d.call(ctx, http.MethodGet, path, nil, &answer); err != nil {
			return err
		}
		events := make([]oracle.Event, len(answer.Events))
		for i := range answer.Events {
			var err error
			if events[i], err = oracleEvent(&answer.Events[i]); err != nil {
				return err
			}
		}
		if err := l.oracle.Observe(events); err != nil {
			return &violation{err}
		}
		if answer.Next == 0 {
			return nil
		}
	}
}

// violation is an error that the oracle has found.
type violation struct{ error }

func oracleEvent(e *eventInfo) (oracle.Event, error) {
	out := oracle.Event{Seq: e.Seq, Node: e.Node, Clear: e.Kind == "clear"}
	for i, t := range e.Types {
		if i > 0 && t.Version != out.Version {
			return out, &violation{fmt.Errorf("event %d has versions %q and %q", e.Seq, out.Version, t.Version)}
		}
		out.Version = t.Version
		for _, r := range t.Set {
			out.Set = append(out.Set, oracle.Key{Type: t.TypeURL, Name: r.Name})
		}
		for _, name := range t.Deleted {
			out.Removed = append(out.Removed, oracle.Key{Type: t.TypeURL, Name: name})
		}
	}
	return out, nil
}

// view reads all nodes.
func (l *killLoop) view(s status) oracle.View {
	l.t.Helper()
	v := oracle.View{Seq: s.Seq, Nodes: map[string]oracle.Node{}}
	for _, info := range l.d.nodes() {
		var doc struct {
			Version   string
			Versions  map[string]string
			Resources []object
		}
		l.d.must(http.MethodGet, nodePath(info.Node, "snapshot"), nil, &doc)
		n := oracle.Node{Seq: info.Seq, Versions: map[string]string{}, Resources: map[oracle.Key]string{}}
		for url, t := range info.Types {
			n.Versions[url] = t.Version
		}
		for _, url := range allTypes {
			version, ok := doc.Versions[url]
			if !ok {
				version = doc.Version
			}
			require.Equal(l.t, n.Versions[url], version, "node %s: list and snapshot differ about %s", info.Node, url)
		}
		for _, r := range doc.Resources {
			n.Resources[keyOf(r)] = contentOf(r)
		}
		require.Len(l.t, n.Resources, info.Resources, "node %s: list and snapshot differ", info.Node)
		v.Nodes[info.Node] = n
	}
	return v
}

func keyOf(resource object) oracle.Key {
	return oracle.Key{Type: resource["@type"].(string), Name: nameOf(resource)}
}

// contentOf returns a digest of a resource's content, independent of the JSON's spelling.
func contentOf(resource object) string {
	data, err := json.Marshal(resource)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(data)
	return string(sum[:16])
}

// work is the background work of a round.
type work struct {
	l        *killLoop
	ctx      context.Context
	cancel   context.CancelFunc
	done     sync.WaitGroup
	returned atomic.Int64
	target   int64
	enough   chan struct{} // closed when target is reached
}

// begin starts updates, compactions and reads of events.
func (l *killLoop) begin(target int) *work {
	w := &work{l: l, target: int64(target), enough: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for range writers {
		w.run(rand.New(rand.NewPCG(l.rand.Uint64(), 1)), w.write)
	}
	w.run(rand.New(rand.NewPCG(l.rand.Uint64(), 2)), w.compact)
	w.run(nil, w.follow)
	return w
}

func (w *work) run(r *rand.Rand, fn func(*rand.Rand)) {
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		fn(r)
	}()
}

// end stops the work. The daemon has exited, so no request is pending afterwards.
func (w *work) end() {
	w.cancel()
	w.done.Wait()
}

// write sends updates until the daemon has exited.
func (w *work) write(r *rand.Rand) {
	for w.ctx.Err() == nil {
		u, req := w.l.draw(r)
		w.l.oracle.Sending(u)
		var answer struct{ Seq uint64 }
		err := w.l.d.call(context.Background(), req.method, req.path, req.body, &answer)
		var rejected *statusError
		switch {
		case err == nil:
			w.l.oracle.Returned(u.ID, answer.Seq)
			if w.returned.Add(1) == w.target {
				close(w.enough)
			}
		case errors.As(err, &rejected) && rejected.status < 500:
			w.l.oracle.Rejected(u.ID)
			w.l.t.Errorf("%s %s: %v", req.method, req.path, err)
			return
		case errors.As(err, &rejected) && strings.Contains(rejected.body, `"closed"`):
			w.l.oracle.Rejected(u.ID)
		case errors.As(err, &rejected):
			w.l.t.Errorf("%s %s: %v", req.method, req.path, err)
			return
		default:
			return // the daemon was killed, and the outcome is unknown
		}
	}
}

// compact requests snapshots at random times.
func (w *work) compact(r *rand.Rand) {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(time.Duration(r.Int64N(int64(100 * time.Millisecond)))):
		}
		var rejected *statusError
		err := w.l.d.call(w.ctx, http.MethodPost, "/v1/compact", nil, nil)
		if errors.As(err, &rejected) && !strings.Contains(rejected.body, "closed") {
			w.l.t.Errorf("compact: %v", err)
		}
	}
}

// follow passes events to the oracle while updates run.
func (w *work) follow(*rand.Rand) {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
		var found *violation
		var rejected *statusError
		if err := w.l.observe(w.ctx); errors.As(err, &found) || errors.As(err, &rejected) {
			w.l.t.Errorf("follow events: %v", err)
			return
		}
	}
}

type request struct {
	method, path string
	body         any
}

// draw returns a random update of a random node.
func (l *killLoop) draw(r *rand.Rand) (oracle.Update, request) {
	u := oracle.Update{
		ID:   fmt.Sprint("u", l.ids.Add(1)),
		Node: fmt.Sprint("node ", r.IntN(loopNodes)),
	}
	n := r.IntN(10)
	if n == 0 {
		u.Kind = oracle.Delete
		return u, request{http.MethodDelete, nodePath(u.Node, "snapshot"), nil}
	}
	u.Set = map[oracle.Key]string{}
	set := func(most int) []object {
		out := []object{}
		for len(out) < most {
			res := drawResource(r, u.ID)
			key := keyOf(res)
			if _, twice := u.Set[key]; !twice {
				u.Set[key] = contentOf(res)
				out = append(out, res)
			}
		}
		return out
	}
	if n < 5 {
		u.Kind = oracle.Put
		return u, request{http.MethodPut, nodePath(u.Node, "snapshot"), object{"version": u.ID, "resources": set(r.IntN(7))}}
	}
	u.Kind = oracle.Patch
	body := object{"version": u.ID, "upsert": set(1 + r.IntN(2))}
	var remove []object
	for range r.IntN(3) {
		key := keyOf(drawResource(r, ""))
		if _, both := u.Set[key]; !both && len(u.Remove) == 0 {
			u.Remove = append(u.Remove, key)
			remove = append(remove, name(key.Type, key.Name))
		}
	}
	body["delete"] = remove
	return u, request{http.MethodPatch, nodePath(u.Node, "resources"), body}
}

// drawResource returns a random resource whose content contains the id.
func drawResource(r *rand.Rand, id string) object {
	if r.IntN(3) == 0 {
		return newResource(resourcev3.EndpointType, fmt.Sprint("e", r.IntN(6)), id)
	}
	out := newResource(resourcev3.ClusterType, fmt.Sprint("c", r.IntN(6)), id)
	out["metadata"] = object{"filter_metadata": object{"pad": object{"text": strings.Repeat("x", r.IntN(8000))}}}
	return out
}
