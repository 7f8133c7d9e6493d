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

// seedEnv names the one history that TestModel is to run. The seed settles the
// steps and not how the processes' own work falls between them.
const seedEnv = "XDSWAL_TEST_SEED"

// Whatever processes do with one backend, in whatever order, and whatever becomes
// of them and of their calls: what the writer has acknowledged is what its
// directory yields, what it has reported as shipped is what every other machine
// goes on from, and nothing comes back that another writer has superseded.
func TestModel(t *testing.T) {
	// What a follower finds by a listing alone is not waited for for long, and is
	// not all that it finds.
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

// link is a process's way to the backend.
type link struct {
	*backendfault.Backend
	down    atomic.Bool
	percent atomic.Int64 // of the calls that fail, with or without effect

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

// process is one opening of a directory.
type process struct {
	*xdswal.Store
	id   int
	dir  string
	link *link
	// until is where the writer that superseded it went on: beyond that it may
	// acknowledge updates, as long as it does not know, and ship none.
	until journal.Sequence
}

func (p *process) shipped() journal.Sequence { return p.Status().Shipper.Shipped }

// model is a backend with processes that come and go, and the oracle.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	memory backends.Backend
	// calm is a history without failures, in which who is succeeded was closed.
	calm bool
	keep int // snapshots

	writer   *process
	zombies  []*process // were superseded, whether they know it or not
	follower *process   // nil if there is none
	drawn    int        // numbers of processes and updates

	// acked are the digests of the states that the writer has acknowledged, or
	// gone on from: that of event n is the nth.
	acked [][32]byte
	// shipped is the newest event that a writer has reported as shipped.
	shipped journal.Sequence
	// told is set if an epoch may tell of events, shipped or not.
	told    bool
	history []string

	mu sync.Mutex
	// batched are the events that were reported as shipped in a batch, and
	// snapshots the names of those that were.
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
			t.Logf("%s=%d, what was done:\n%s", seedEnv, seed, strings.Join(m.history, "\n"))
		}
	})
	m.writer = m.process(t.TempDir())
	require.True(t, m.start(m.writer, m.open(m.writer)))
	m.acked = [][32]byte{m.writer.State().Digest()}
	m.writer.link.down.Store(m.coin()) // so that there may be epochs and no events
	return m
}

func (m *model) note(format string, args ...any) {
	m.history = append(m.history, fmt.Sprintf(format, args...))
}

// coin decides about what a calm history does not have.
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
		m.comeBack()
	}
}

// check is what holds after every step.
func (m *model) check() {
	require.NoError(m.t, m.writer.Status().Shipper.Fenced, "process %d is the writer", m.writer.id)
	m.observe()
	for _, z := range m.zombies {
		require.LessOrEqual(m.t, z.shipped(), z.until, "process %d was superseded", z.id)
	}
}

// observe takes note of what the writer reports as shipped.
func (m *model) observe() { m.shipped = max(m.shipped, m.writer.shipped()) }

func (m *model) newest() journal.Sequence { return journal.Sequence(len(m.acked) - 1) }

// requireAcked checks that a process is at a state that was acknowledged, and at
// none before what was reported as shipped.
func (m *model) requireAcked(p *process) {
	m.t.Helper()
	st := p.State()
	require.GreaterOrEqual(m.t, st.Sequence(), m.shipped, "process %d", p.id)
	require.LessOrEqual(m.t, st.Sequence(), m.newest(), "process %d", p.id)
	require.Equal(m.t, m.acked[st.Sequence()], st.Digest(), "process %d at event %d", p.id, st.Sequence())
}

// process returns one that is still to be started in a directory.
func (m *model) process(dir string) *process {
	m.drawn++
	l := &link{Backend: &backendfault.Backend{Backend: m.memory}, rng: rand.New(rand.NewPCG(m.rng.Uint64(), 1))}
	l.Fault = l.fault
	l.percent.Store(m.percent())
	return &process{id: m.drawn, dir: dir, link: l}
}

// percent draws how many calls fail.
func (m *model) percent() int64 {
	if m.calm {
		return 0
	}
	return int64(m.rng.IntN(3)) * 8
}

func (m *model) options(p *process) xdswal.Options {
	opt := in(p.dir, fast(p.link))
	opt.ShipInterval = time.Duration(1+m.rng.IntN(40)) * time.Millisecond
	opt.SegmentBytes, opt.KeepSnapshots, opt.KeepFor = small, m.keep, -1
	opt.Hooks.Compactor = compactor.Hooks{BatchWriteEnd: m.batchShipped, SnapshotWriteEnd: m.snapshotShipped}
	return opt
}

func (m *model) batchShipped(info compactor.Batch) {
	if info.Err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq := info.First; seq <= info.Last; seq++ {
		m.batched[seq] = true
	}
}

func (m *model) snapshotShipped(info compactor.Snapshot) {
	if !info.Backend || info.Err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshots[info.Name] = true
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

// start makes a process a writer or a follower, however often that fails because
// its calls do. It returns false if that was refused for a good reason.
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
			// By the writer, who could claim its epoch only now.
		case errors.Is(err, xdswal.ErrGap):
			// Epochs tell of events that were never shipped. Nobody was fenced.
			require.Zero(m.t, m.shipped, "%v", err)
			require.True(m.t, m.told, "%v", err)
			return false
		default:
			require.NoError(m.t, err)
		}
		require.Less(m.t, try, tries, "%v", err)
	}
}

// took makes a process the writer that has taken over from another machine. What
// was not shipped is lost.
func (m *model) took(p *process) {
	old := m.writer
	// Until now, in which it was fenced.
	m.observe()
	m.requireAcked(p)
	require.True(m.t, p.Status().Shipper.Claimed)
	require.Greater(m.t, p.Status().Epoch, old.Status().Epoch)
	old.until = p.State().Sequence()
	m.acked = m.acked[:old.until+1]
	m.writer = p
	if !m.calm {
		m.zombies = append(m.zombies, old)
	}
}

// end ends a process in an orderly way or not.
func (m *model) end(p *process) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if m.coin() {
		cancel() // it neither ships nor writes a snapshot
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

// set sets a node of a process to what no other update sets.
func (m *model) set(p *process, node string) error {
	m.drawn++
	// Some size, so that the journal has segments to drop.
	value := fmt.Sprint(m.drawn, strings.Repeat(".", m.rng.IntN(8<<10)))
	return snapshotCache(p.Store).SetSnapshot(context.Background(), node, clusters(m.t, fmt.Sprint(m.drawn), clusterOf("c", value)))
}

func (m *model) write() {
	require.NoError(m.t, m.set(m.writer, nodeName(m.rng.IntN(5))))
	st := m.writer.State()
	m.note("event %d", st.Sequence())
	require.Equal(m.t, m.newest()+1, st.Sequence())
	m.acked = append(m.acked, st.Digest())
}

func (m *model) zombie() *process { return m.zombies[m.rng.IntN(len(m.zombies))] }

// zombieWrite has a superseded writer acknowledge an update, unless it knows.
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
	m.told = m.told || m.newest() > 0
	if m.needsBackend(p) {
		require.True(m.t, m.start(p, m.open(p)))
	} else {
		require.NoError(m.t, m.open(p)())
	}
	m.note("process %d goes on, and has the epoch: %t", p.id, p.Status().Shipper.Claimed)
	m.writer = p
	require.Equal(m.t, m.newest(), p.State().Sequence())
	m.requireAcked(p)
}

// needsBackend reports whether a directory cannot be opened by itself: one that was
// made from a backend, and ended before it had a snapshot of that.
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
		m.took(p)
	}
}

// comeBack starts a superseded process's directory again.
func (m *model) comeBack() {
	i := m.rng.IntN(len(m.zombies))
	z := m.zombies[i]
	m.zombies = append(m.zombies[:i], m.zombies[i+1:]...)
	m.end(z)
	p := m.process(z.dir)
	p.link.down.Store(m.coin())
	if !m.start(p, m.open(p)) {
		return // it has nothing local any more
	}
	if p.Status().Shipper.Claimed {
		m.took(p)
		return
	}
	// It could not ask who leads, and serves what it has as long as it cannot.
	require.Equal(m.t, z.State().Digest(), p.State().Digest())
	p.until = z.until
	m.zombies = append(m.zombies, p)
}

// follow starts a follower, or cuts it off, or lets it go on.
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
		m.requireAcked(f)
		m.follower = f
	}
}

// promote makes the follower the writer, wherever it has come to.
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
		m.took(f)
	}
}

// finish ends all failures, and requires that all agree then.
func (m *model) finish() {
	m.note("all failures end")
	w := m.writer
	w.link.heal()
	for _, z := range m.zombies {
		z.link.heal()
		m.zombieWrite(z) // so that it has something to ship, and learns
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
	m.requireAcked(bare)
	closeStore(m.t, bare.Store)
}

// requireMoments restores every moment from the backend alone. What it yields was
// acknowledged, and it yields what was reported as shipped, snapshot and batches.
func (m *model) requireMoments() {
	remote, err := catalog.List(m.t.Context(), m.memory)
	require.NoError(m.t, err)
	for seq := journal.Sequence(1); seq <= m.newest(); seq++ {
		st, _, err := restore.Restore(m.t.Context(), restore.Options{Backend: m.memory, Target: restore.Target{Sequence: seq}})
		if err == nil {
			require.Equal(m.t, seq, st.Sequence())
			require.Equal(m.t, m.acked[seq], st.Digest(), "event %d", seq)
			continue
		}
		require.True(m.t, errors.Is(err, restore.ErrGap) || errors.Is(err, restore.ErrTarget), "%v", err)
		require.False(m.t, m.kept(remote, seq), "%v, of\n%v\n%v", err, remote.Snapshots, remote.Batches)
	}
}

// kept reports whether a moment has to be restorable: since the snapshot before it
// that was reported, all events were reported in batches. A snapshot that landed
// unreported may lie before what the writer keeps, which did not know of it. And a
// machine may be lost whose snapshot was shipped before the batches that lead to
// it; in a calm history none is.
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
