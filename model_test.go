package xdswal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
)

// seedEnv is the seed of the only history that TestModel runs. The seed determines the
// steps, but not their interleaving with the background work of the processes.
const seedEnv = "XDSWAL_TEST_SEED"

// Processes use one backend in a random order, and processes and calls fail at random:
// the writer's directory restores all updates that have returned, every other machine
// restores at least what was reported as shipped, and no event of a superseded writer is
// restored.
func TestModel(t *testing.T) {
	// Changes that a follower finds only by a listing arrive soon, but not at once.
	xdswal.SetRelistInterval(t, time.Second)
	seeds := []uint64{0, 1, 2, 3, 4, 5}
	if testing.Short() {
		seeds = seeds[:2]
	}
	if only := os.Getenv(seedEnv); only != "" {
		seed, err := strconv.ParseUint(only, 10, 64)
		require.NoError(t, err)
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			for range 120 {
				m.step()
				m.check()
			}
			m.finish()
		})
	}
}

// link is the connection of a process to the backend.
type link struct {
	*backendfault.Backend
	down    atomic.Bool
	percent atomic.Int64 // percentage of calls that fail, with or without effect

	mu  sync.Mutex
	rng *rand.Rand
}

func (l *link) fault(backendfault.Op, string) backendfault.Fault {
	if l.down.Load() {
		return backendfault.FailAbsent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rng.Int64N(100) >= l.percent.Load() {
		return backendfault.None
	}
	if l.rng.IntN(2) == 0 {
		return backendfault.FailAbsent
	}
	return backendfault.FailPresent
}

func (l *link) heal() {
	l.down.Store(false)
	l.percent.Store(0)
}

// process is a store that is open in a directory.
type process struct {
	*xdswal.Store
	id   int
	dir  string
	link *link
	// until is the last event before the writer that superseded this process. It may
	// return later updates until it is fenced, and must not ship them.
	until journal.Sequence
}

func (p *process) shipped() journal.Sequence { return p.Status().Shipper.Shipped }

// model is a backend with processes, and the expected states.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	memory backends.Backend
	// calm is set for a history without failures, in which a writer is closed before
	// another one takes over.
	calm bool
	keep int // snapshots

	writer   *process
	zombies  []*process // superseded writers, fenced or not yet
	follower *process   // nil if there is none
	drawn    int        // number of processes and updates

	// returned are the digests of the writer's states: index n is the state at event n.
	returned [][32]byte
	// shipped is the newest event that a writer has reported as shipped.
	shipped journal.Sequence
	// recorded is set if an epoch may record events, shipped or not.
	recorded bool
	history  []string

	mu sync.Mutex
	// batched are the events that were reported as shipped in a batch, and snapshots
	// the names of the snapshots that were.
	batched   map[journal.Sequence]bool
	snapshots map[string]bool
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), memory: backendtest.NewMemory(), calm: seed%3 == 0,
		batched: map[journal.Sequence]bool{}, snapshots: map[string]bool{},
	}
	m.keep = 2 + m.rng.IntN(10)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s=%d, history:\n%s", seedEnv, seed, strings.Join(m.history, "\n"))
		}
	})
	m.writer = m.process(t.TempDir())
	require.True(t, m.start(m.writer, m.open(m.writer)))
	m.returned = [][32]byte{m.writer.State().Digest()}
	m.writer.link.down.Store(m.coin()) // there may be epochs and no events
	return m
}

func (m *model) note(format string, args ...any) {
	m.history = append(m.history, fmt.Sprintf(format, args...))
}

// coin returns true at random, and false in a calm history.
func (m *model) coin() bool { return !m.calm && m.rng.IntN(2) == 0 }

func (m *model) step() {
	k := m.rng.IntN(100)
	switch {
	case k < 40:
		m.write()
	case k < 48:
		m.compact(m.writer)
	case k < 57:
		time.Sleep(time.Duration(m.rng.IntN(30)) * time.Millisecond)
	case k < 64:
		m.restart()
	case k < 68:
		m.takeOver()
	case k < 72:
		m.promote()
	case k < 77:
		m.follow()
	case m.calm:
		m.write()
	case k < 82:
		m.writer.link.down.Store(!m.writer.link.down.Load())
		m.note("the writer's backend is down: %t", m.writer.link.down.Load())
	case k < 85:
		m.writer.link.percent.Store(m.percent())
		m.note("%d percent of the writer's calls fail", m.writer.link.percent.Load())
	case len(m.zombies) == 0:
		m.write()
	case k < 93:
		m.zombieWrite(m.zombie())
	case k < 96:
		m.compact(m.zombie())
	default:
		m.rejoin()
	}
}

// check checks the invariants after every step.
func (m *model) check() {
	require.NoError(m.t, m.writer.Status().Shipper.Fenced, "process %d is the writer", m.writer.id)
	m.observe()
	for _, z := range m.zombies {
		require.LessOrEqual(m.t, z.shipped(), z.until, "process %d was superseded", z.id)
	}
}

// observe records what the writer reports as shipped.
func (m *model) observe() { m.shipped = max(m.shipped, m.writer.shipped()) }

func (m *model) newest() journal.Sequence { return journal.Sequence(len(m.returned) - 1) }

// requireReturned checks that the state of a process is one of returned, and not before
// the events that were reported as shipped.
func (m *model) requireReturned(p *process) {
	m.t.Helper()
	st := p.State()
	require.GreaterOrEqual(m.t, st.Sequence(), m.shipped, "process %d", p.id)
	require.LessOrEqual(m.t, st.Sequence(), m.newest(), "process %d", p.id)
	require.Equal(m.t, m.returned[st.Sequence()], st.Digest(), "process %d at event %d", p.id, st.Sequence())
}

// process returns a process for a directory. It is not started.
func (m *model) process(dir string) *process {
	m.drawn++
	l := &link{Backend: &backendfault.Backend{Backend: m.memory}, rng: rand.New(rand.NewPCG(m.rng.Uint64(), 1))}
	l.Fault = l.fault
	l.percent.Store(m.percent())
	return &process{id: m.drawn, dir: dir, link: l}
}

// percent returns a random percentage of failing calls.
func (m *model) percent() int64 {
	if m.calm {
		return 0
	}
	return int64(m.rng.IntN(3)) * 8
}

func (m *model) options(p *process) xdswal.Options {
	opt := in(p.dir, fast(p.link))
	opt.ShipInterval = time.Duration(1+m.rng.IntN(40)) * time.Millisecond
	opt.SegmentBytes, opt.KeepSnapshots, opt.KeepFor = small, m.keep, xdswal.Off
	opt.Hooks.Compactor = compactor.Hooks{BatchWriteEnd: m.batchShipped, SnapshotWriteEnd: m.snapshotShipped}
	return opt
}

func (m *model) batchShipped(b compactor.Batch) {
	if b.Err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq := b.First; seq <= b.Last; seq++ {
		m.batched[seq] = true
	}
}

func (m *model) snapshotShipped(s compactor.Snapshot) {
	if !s.Backend || s.Err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshots[s.Name] = true
}

func (m *model) open(p *process) func() error {
	return m.openWith(p, m.options(p))
}

func (m *model) openWith(p *process, opt xdswal.Options) func() error {
	return func() (err error) {
		p.Store, err = xdswal.Open(context.Background(), opt)
		if s := p.Store; err == nil {
			m.t.Cleanup(func() { _ = s.Close(context.Background()) })
		}
		return err
	}
}

// start makes a process a writer or a follower, and retries while injected faults make it
// fail. It returns false if the start was rejected for another valid reason.
func (m *model) start(p *process, fn func() error) bool {
	const heals, tries = 4, 8
	for try := 1; ; try++ {
		if try == heals {
			p.link.heal()
		}
		err := fn()
		if err == nil {
			m.note("process %d is at event %d in epoch %d", p.id, p.State().Sequence(), p.Status().Epoch)
			return true
		}
		m.note("process %d: %v", p.id, err)
		switch {
		case errors.Is(err, backendfault.ErrInjected):
		case errors.Is(err, xdswal.ErrFenced):
			// By the writer, which could not claim its epoch before.
		case errors.Is(err, xdswal.ErrGap):
			// An epoch records events that were never shipped. No writer was fenced.
			require.Zero(m.t, m.shipped, "%v", err)
			require.True(m.t, m.recorded, "%v", err)
			return false
		default:
			require.NoError(m.t, err)
		}
		require.Less(m.t, try, tries, "%v", err)
	}
}

// tookOver makes a process the writer after it took over from another machine. Events
// that were not shipped are lost.
func (m *model) tookOver(p *process) {
	old := m.writer
	// The old writer could ship until it was fenced.
	m.observe()
	m.requireReturned(p)
	require.True(m.t, p.Status().Shipper.Claimed)
	require.Greater(m.t, p.Status().Epoch, old.Status().Epoch)
	old.until = p.State().Sequence()
	m.returned = m.returned[:old.until+1]
	m.writer = p
	if !m.calm {
		m.zombies = append(m.zombies, old)
	}
}

// end closes a process, at random without time to ship.
func (m *model) end(p *process) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if m.coin() {
		cancel() // no shipping and no snapshot
	}
	err := p.Close(ctx)
	m.note("process %d ends at event %d: %v", p.id, p.State().Sequence(), err)
	if m.calm {
		require.NoError(m.t, err)
	}
	if st := p.Status().Shipper; err == nil && st.Fenced == nil {
		require.Equal(m.t, p.State().Sequence(), st.Shipped)
	}
}

// set sets a node of a process to a unique value.
func (m *model) set(p *process, node string) error {
	m.drawn++
	// Large enough that the journal drops segments.
	value := fmt.Sprint(m.drawn, strings.Repeat(".", m.rng.IntN(8<<10)))
	return snapshotCache(p.Store).SetSnapshot(context.Background(), node, clusters(m.t, fmt.Sprint(m.drawn), clusterOf("c", value)))
}

func (m *model) write() {
	require.NoError(m.t, m.set(m.writer, nodeName(m.rng.IntN(5))))
	st := m.writer.State()
	m.note("event %d", st.Sequence())
	require.Equal(m.t, m.newest()+1, st.Sequence())
	m.returned = append(m.returned, st.Digest())
}

func (m *model) zombie() *process { return m.zombies[m.rng.IntN(len(m.zombies))] }

// zombieWrite updates a superseded writer, which succeeds until it is fenced.
func (m *model) zombieWrite(z *process) {
	err := m.set(z, nodeName(m.rng.IntN(5)))
	m.note("process %d is superseded, and at event %d: %v", z.id, z.State().Sequence(), err)
	if err != nil {
		require.ErrorIs(m.t, err, xdswal.ErrFenced)
	}
}

func (m *model) compact(p *process) {
	seq, err := p.Compact(context.Background())
	m.note("process %d compacts to event %d", p.id, seq)
	require.NoError(m.t, err)
}

// restart opens the writer's directory again.
func (m *model) restart() {
	m.end(m.writer)
	m.observe()
	p := m.process(m.writer.dir)
	p.link.down.Store(m.coin())
	m.recorded = m.recorded || m.newest() > 0
	if m.needsBackend(p) {
		require.True(m.t, m.start(p, m.open(p)))
	} else {
		require.NoError(m.t, m.open(p)())
	}
	m.note("process %d is the writer, epoch claimed: %t", p.id, p.Status().Shipper.Claimed)
	m.writer = p
	require.Equal(m.t, m.newest(), p.State().Sequence())
	m.requireReturned(p)
}

// needsBackend reports whether a directory cannot be opened without the backend: it was
// restored from there, and the process ended before it wrote a local snapshot.
func (m *model) needsBackend(p *process) bool {
	local, err := catalog.Local(filepath.Join(p.dir, "snapshots"))
	require.NoError(m.t, err)
	return len(local) == 0
}

// takeOver starts a writer on a bare machine.
func (m *model) takeOver() {
	if m.calm {
		m.end(m.writer)
		m.observe()
	}
	m.note("a bare machine takes over")
	p := m.process(m.t.TempDir())
	if m.start(p, m.open(p)) {
		m.tookOver(p)
	}
}

// rejoin opens the directory of a superseded process again.
func (m *model) rejoin() {
	i := m.rng.IntN(len(m.zombies))
	z := m.zombies[i]
	m.zombies = append(m.zombies[:i], m.zombies[i+1:]...)
	m.end(z)
	p := m.process(z.dir)
	p.link.down.Store(m.coin())
	if !m.start(p, m.open(p)) {
		return // it has no local data
	}
	if p.Status().Shipper.Claimed {
		m.tookOver(p)
		return
	}
	// It could not look up the newest writer, and serves its local data.
	require.Equal(m.t, z.State().Digest(), p.State().Digest())
	p.until = z.until
	m.zombies = append(m.zombies, p)
}

// follow starts a follower, or changes whether it can reach the backend.
func (m *model) follow() {
	if f := m.follower; f != nil {
		f.link.down.Store(m.coin())
		f.link.percent.Store(m.percent())
		m.note("the follower's backend is down: %t", f.link.down.Load())
		return
	}
	m.note("a follower starts")
	f := m.process(m.t.TempDir())
	opt := m.options(f)
	opt.Follow = true
	if m.start(f, m.openWith(f, opt)) {
		m.requireReturned(f)
		m.follower = f
	}
}

// promote makes the follower the writer, at any event.
func (m *model) promote() {
	f := m.follower
	if f == nil {
		return
	}
	if m.calm {
		m.end(m.writer)
		m.observe()
	}
	m.note("the follower at event %d is promoted", f.State().Sequence())
	if m.start(f, func() error { return f.Promote(context.Background()) }) {
		m.follower = nil
		m.tookOver(f)
	}
}

// finish ends all failures, and checks that all processes agree.
func (m *model) finish() {
	m.note("all failures end")
	w := m.writer
	w.link.heal()
	for _, z := range m.zombies {
		z.link.heal()
		m.zombieWrite(z) // it is fenced when it ships this
	}
	m.write()
	requireShipped(m.t, w.Store)
	if f := m.follower; f != nil {
		f.link.heal()
		require.Eventually(m.t, func() bool { return f.State().Digest() == w.State().Digest() }, timeout, time.Millisecond)
		closeStore(m.t, f.Store)
	}
	for _, z := range m.zombies {
		requireFenced(m.t, z.Store)
	}
	m.check()
	for _, z := range m.zombies {
		closeStore(m.t, z.Store)
	}
	closeStore(m.t, w.Store)
	m.observe()
	require.Equal(m.t, m.newest(), m.shipped)
	m.requireMoments()

	bare := &process{Store: openStore(m.t, fast(m.memory))}
	m.requireReturned(bare)
	closeStore(m.t, bare.Store)
}

// requireMoments restores every moment from the backend alone: each restored state was
// returned, and each moment that kept requires can be restored.
func (m *model) requireMoments() {
	remote, err := catalog.List(m.t.Context(), m.memory)
	require.NoError(m.t, err)
	for seq := journal.Sequence(1); seq <= m.newest(); seq++ {
		st, _, err := restore.Restore(m.t.Context(), restore.Options{Backend: m.memory, Target: restore.Target{Sequence: seq}})
		if err == nil {
			require.Equal(m.t, seq, st.Sequence())
			require.Equal(m.t, m.returned[seq], st.Digest(), "event %d", seq)
			continue
		}
		require.True(m.t, errors.Is(err, restore.ErrGap) || errors.Is(err, restore.ErrTarget), "%v", err)
		require.False(m.t, m.kept(remote, seq), "%v, of\n%v\n%v", err, remote.Snapshots, remote.Batches)
	}
}

// kept reports whether a moment must be restorable: all events after the newest reported
// snapshot before it were reported in batches. Snapshots whose Put took effect but returned
// an error are ignored: the writer does not retain their tail. In a calm history batches
// need not be reported: no machine is lost between a snapshot and the batches before it.
func (m *model) kept(remote *catalog.Remote, seq journal.Sequence) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range remote.Snapshots { // newest first
		if s.Sequence > seq || !m.snapshots[s.String()] {
			continue
		}
		for missing := s.Sequence + 1; missing <= seq; missing++ {
			if !m.batched[missing] && !m.calm {
				return false
			}
		}
		return true
	}
	return false
}
