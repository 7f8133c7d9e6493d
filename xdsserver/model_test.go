package xdsserver_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
	"github.com/xdswal/xdswal/xdsserver"
)

const (
	// modelSeedEnv is the seed of the only history that TestModel runs, whose steps it
	// prints.
	modelSeedEnv = "XDSSERVER_TEST_SEED"
	// modelSeedsEnv is the number of histories, from the first seed that TestModel runs.
	modelSeedsEnv = "XDSSERVER_TEST_SEEDS"
	// modelFirstEnv is the first seed.
	modelFirstEnv = "XDSSERVER_TEST_FIRST"
)

// Clients subscribe, acknowledge, reject, reconnect and read slowly at random, while
// their nodes change. Each response obeys the rules of the design, and at rest each
// client holds what its node has. Time is virtual. A seed is one history, except for the
// interleaving of steps that every fifth seed does not wait for.
func TestModel(t *testing.T) {
	first, count := uint64(1), uint64(200)
	if testing.Short() {
		count = 50
	}
	for _, env := range []struct {
		name  string
		value *uint64
	}{{modelFirstEnv, &first}, {modelSeedsEnv, &count}} {
		if text := os.Getenv(env.name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			require.NoError(t, err)
			*env.value = n
		}
	}
	if text := os.Getenv(modelSeedEnv); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		runModel(t, seed, true)
		return
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, seed, false)
		})
	}
}

func runModel(t *testing.T, seed uint64, verbose bool) {
	// While the server is busy, virtual time stands still.
	watchdog := time.AfterFunc(30*time.Second, func() { panic(fmt.Sprintf("%s=%d: the server is busy for 30 seconds", modelSeedEnv, seed)) })
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed)
		m.verbose = verbose
		defer m.close()
		for range 5 {
			for range 25 {
				m.step()
			}
			m.rest()
		}
	})
}

type model struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	start   time.Time
	racy    bool // steps do not wait for the server
	resting bool // clients answer at once
	atRest  bool // all bounds have passed
	verbose bool
	history []string

	ctx      context.Context
	cancel   context.CancelFunc
	store    *xdswal.Store
	cache    *xdscache.SnapshotCache
	server   *xdsserver.Server
	nodes    []*modelNode
	clients  []*modelClient
	versions modelVersions
	// lastVersion is the last version that a SotW client accepted, by client and type.
	lastVersion map[string]string
	drawn       int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 9)), start: time.Now(), racy: seed%5 == 0,
		versions:    modelVersions{map[string]string{}, map[string]string{}},
		lastVersion: map[string]string{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	m.store, err = xdswal.Open(m.ctx, xdswal.Options{MemoryOnly: true})
	require.NoError(t, err)
	m.cache = m.store.SnapshotCache(false, cachev3.IDHash{}, nil)
	m.server = newModelServer(m.ctx, m.cache)
	for i := range 1 + m.rng.IntN(2) {
		m.nodes = append(m.nodes, newModelNode(fmt.Sprint("n", i)))
	}
	for i := range 1 + m.rng.IntN(4) {
		c := &modelClient{
			m: m, name: fmt.Sprint("client", i), node: m.nodes[m.rng.IntN(len(m.nodes))],
			delta: m.chance(60), ads: m.chance(75), auto: m.chance(50), delay: m.chance(30),
			window: []int{0, 0, 1, 3}[m.rng.IntN(4)], held: emptyHeld(),
		}
		if m.chance(40) {
			c.nack = 15
		}
		m.clients = append(m.clients, c)
	}
	m.logf("seed %d", seed)
	for _, c := range m.clients {
		m.logf("%s: node %s, delta %t, ads %t, auto %t, delay %t, window %d, nack %d%%", c.name, c.node.id, c.delta, c.ads, c.auto, c.delay, c.window, c.nack)
	}
	if m.chance(80) {
		m.set(m.nodes[0])
	}
	for _, c := range m.clients {
		c.connect()
	}
	return m
}

func (m *model) close() {
	for _, c := range m.clients {
		c.disconnect()
	}
	if open := m.server.Clients(); len(open) > 0 {
		m.t.Errorf("seed %d: %d clients are left", m.seed, len(open))
	}
	m.cancel()
	if err := m.store.Close(context.Background()); err != nil {
		m.t.Errorf("seed %d: close the store: %v", m.seed, err)
	}
}

func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) pick(names []string) string { return names[m.rng.IntN(len(names))] }

func (m *model) logf(format string, args ...any) {
	line := fmt.Sprintf("%8.3fs ", time.Since(m.start).Seconds()) + fmt.Sprintf(format, args...)
	m.history = append(m.history, line)
	if m.verbose {
		m.t.Log(line)
	}
}

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	text := fmt.Sprintf(format, args...)
	history := strings.Join(m.history, "\n")
	if m.verbose {
		history = ""
	}
	m.t.Fatalf("%s\nThis is %s=%d. Its history:\n%s\n%s", text, modelSeedEnv, m.seed, history, text)
}

// step does something at random, and waits until the server has nothing to do.
func (m *model) step() {
	switch n := m.rng.IntN(100); {
	case n < 22:
		m.update(m.nodes[m.rng.IntN(len(m.nodes))])
	case n < 42:
		m.set(m.nodes[m.rng.IntN(len(m.nodes))])
	case n < 45:
		m.clear(m.nodes[m.rng.IntN(len(m.nodes))])
	case n < 55:
		m.advance(time.Duration(1+m.rng.IntN(3000)) * time.Millisecond)
	default:
		m.clients[m.rng.IntN(len(m.clients))].step()
	}
	if !m.racy || m.chance(40) {
		m.settle()
	}
}

// settle lets clients that are not paused read and answer until nothing is left to do.
func (m *model) settle() {
	for round := 0; ; round++ {
		if round > 400 {
			m.failf("the server does not stop sending")
		}
		synctest.Wait()
		type arrival struct {
			s *modelSession
			f modelFrame
		}
		var arrivals []arrival
		for _, c := range m.clients {
			for _, s := range c.sessions {
				s.checkAlive()
				if c.paused {
					continue
				}
				select {
				case f := <-s.wire.toClient:
					arrivals = append(arrivals, arrival{s, f})
				default:
				}
			}
		}
		if len(arrivals) == 0 {
			break
		}
		synctest.Wait()
		for _, a := range arrivals {
			a.s.receive(a.f)
		}
	}
	for _, c := range m.clients {
		for _, s := range c.sessions {
			s.wire.settled()
			if !c.paused {
				s.checkPrompt()
				s.noteWaiting()
			}
		}
	}
}

func (m *model) advance(d time.Duration) {
	m.logf("%s pass", d)
	time.Sleep(d)
}

// rest lets everybody read and answer, and all bounds pass, and checks what the clients
// hold.
func (m *model) rest() {
	m.logf("rest")
	m.resting = true
	defer func() { m.resting = false }()
	for _, c := range m.clients {
		c.resume()
	}
	m.settle()
	for range 30 {
		for _, c := range m.clients {
			c.answerAll()
		}
		m.settle()
		time.Sleep(time.Second)
	}
	m.settle()
	m.atRest = true
	defer func() { m.atRest = false }()
	for _, c := range m.clients {
		for _, s := range c.sessions {
			s.checkRest()
		}
	}
	for _, n := range m.nodes {
		m.checkAcked(n)
	}
}

// checkAcked checks that the server knows, at rest, that the clients of a node have
// acknowledged its last change, unless one of them has rejected its last response.
func (m *model) checkAcked(n *modelNode) {
	for _, c := range m.clients {
		for _, s := range c.sessions {
			for _, w := range s.watches {
				if c.node == n && w.last() != nil && w.last().rejected {
					return
				}
			}
		}
	}
	if err := m.server.WaitAcked(doneContext(), n.id, n.seq); err != nil {
		m.failf("at rest: %v", err)
	}
}

// mutate changes a few resources.
func (m *model) mutate(want map[string]map[string]int) {
	switch n := m.rng.IntN(10); {
	case n == 0: // a cluster alone (R1)
		want[resourcev3.ClusterType][m.pick(modelNames[resourcev3.ClusterType])] = m.rng.IntN(modelVariants)
	case n <= 2: // the traffic moves from one cluster to another (R6)
		old, now := m.pick(modelNames[resourcev3.ClusterType]), m.pick(modelNames[resourcev3.ClusterType])
		delete(want[resourcev3.ClusterType], old)
		want[resourcev3.ClusterType][now] = m.rng.IntN(modelVariants)
		want[resourcev3.EndpointType][m.pick(modelNames[resourcev3.EndpointType])] = m.rng.IntN(modelVariants)
		want[resourcev3.RouteType][m.pick(modelNames[resourcev3.RouteType])] = m.rng.IntN(modelVariants)
		if m.chance(50) {
			want[resourcev3.ListenerType][m.pick(modelNames[resourcev3.ListenerType])] = m.rng.IntN(modelVariants)
		}
	default:
		for range 1 + m.rng.IntN(5) {
			typeURL := m.pick(modelTypes)
			name := m.pick(modelNames[typeURL])
			if m.chance(25) {
				delete(want[typeURL], name)
			} else {
				want[typeURL][name] = m.rng.IntN(modelVariants)
			}
		}
	}
}

// fill returns the content of a new node.
func (m *model) fill() map[string]map[string]int {
	want := map[string]map[string]int{}
	for _, typeURL := range modelTypes {
		want[typeURL] = map[string]int{}
		for _, name := range modelNames[typeURL] {
			if m.chance(60) {
				want[typeURL][name] = m.rng.IntN(modelVariants)
			}
		}
	}
	return want
}

// version returns a version: new, or one of a few, so that new contents come under old
// versions (R8).
func (m *model) version() string {
	if m.chance(30) {
		return m.pick([]string{"a", "b"})
	}
	m.drawn++
	return fmt.Sprint(m.drawn)
}

func (m *model) set(n *modelNode) {
	want := n.variants()
	if n.state() == nil || m.chance(8) {
		want = m.fill()
	}
	if !m.chance(5) { // else the same again
		m.mutate(want)
	}
	n.begin(want)
	resources := map[string][]types.Resource{}
	for _, typeURL := range modelTypes {
		resources[typeURL] = []types.Resource{}
		for name, variant := range want[typeURL] {
			resources[typeURL] = append(resources[typeURL], newModelItem(typeURL, name, variant).message)
		}
	}
	version := m.version()
	m.logf("%s: state %d: set %s, version %q", n.id, len(n.history)-1, n.state(), version)
	snapshot, err := cachev3.NewSnapshot(version, resources)
	require.NoError(m.t, err)
	seq, err := m.cache.Set(m.ctx, n.id, snapshot)
	require.NoError(m.t, err)
	n.done(seq)
}

func (m *model) update(n *modelNode) {
	before, want := n.variants(), n.variants()
	m.mutate(want)
	n.begin(want)
	upserts := map[string][]types.ResourceWithTTL{}
	var deletes []xdscache.ResourceName
	for _, typeURL := range modelTypes {
		for _, name := range slices.Sorted(maps.Keys(want[typeURL])) {
			variant := want[typeURL][name]
			if was, ok := before[typeURL][name]; !ok || was != variant || m.chance(10) {
				upserts[typeURL] = append(upserts[typeURL], types.ResourceWithTTL{Resource: newModelItem(typeURL, name, variant).message})
			}
		}
		for name := range before[typeURL] {
			if _, ok := want[typeURL][name]; !ok {
				deletes = append(deletes, xdscache.ResourceName{TypeURL: typeURL, Name: name})
			}
		}
	}
	version := m.version()
	m.logf("%s: state %d: update to %s, version %q", n.id, len(n.history)-1, n.state(), version)
	seq, err := m.cache.UpdateResources(m.ctx, n.id, upserts, deletes, version)
	require.NoError(m.t, err)
	n.done(seq)
}

func (m *model) clear(n *modelNode) {
	n.begin(nil)
	m.logf("%s: state %d: clear", n.id, len(n.history)-1)
	seq, err := m.cache.Clear(m.ctx, n.id)
	require.NoError(m.t, err)
	n.done(seq)
}

// connect opens the client's streams.
func (c *modelClient) connect() {
	only := []string{""}
	if !c.ads {
		only = modelTypes
	}
	for _, typeURL := range only {
		s := &modelSession{
			c: c, number: c.m.drawn, only: typeURL, wire: newModelWire(c.m.ctx, c.node, c.window), done: make(chan error, 1),
			watches: map[string]*modelWatch{}, nonces: map[string]bool{}, owed: map[string]*modelResponse{}, may: map[string]bool{}, freeAt: time.Now(),
		}
		c.m.drawn++
		c.sessions = append(c.sessions, s)
		go func() {
			var err error
			if c.delta {
				err = c.m.server.DeltaStreamHandler(modelDeltaWire{s.wire}, typeURL)
			} else {
				err = c.m.server.StreamHandler(modelSotwWire{s.wire}, typeURL)
			}
			s.done <- err
		}()
	}
	c.m.logf("%s connects", c.name)
}

func (s *modelSession) checkAlive() {
	select {
	case err := <-s.done:
		s.failf("the server ended the stream: %v", err)
	default:
	}
}

// disconnect ends the client's streams, as a lost connection or in order.
func (c *modelClient) disconnect() {
	for _, s := range c.sessions {
		if c.m.chance(50) {
			close(s.wire.toServer)
			if !c.paused {
				synctest.Wait()
			}
		}
		s.wire.cancel()
		synctest.Wait()
		select {
		case <-s.done:
		default:
			c.m.t.Errorf("seed %d: %s.%d: the stream's handler does not return", c.m.seed, c.name, s.number)
		}
	}
	c.sessions = nil
}

// reconnect opens new streams for all types of the old ones. A delta client names the
// versions of what it holds, some wrong ones, or none.
func (c *modelClient) reconnect() {
	type opened struct {
		typeURL  string
		sub      modelSub
		explicit bool
	}
	var all []opened
	for _, typeURL := range modelTypes {
		if w := c.watch(typeURL); w != nil {
			all = append(all, opened{typeURL, w.sub.clone(), len(w.subscribed["*"]) > 0})
		}
	}
	c.disconnect()
	c.paused = false
	c.connect()
	if c.m.chance(40) {
		c.m.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	forgets := c.m.chance(20)
	for _, o := range all {
		if c.watch(o.typeURL) != nil {
			continue // by its clusters
		}
		if !o.sub.wildcard && len(o.sub.names) == 0 {
			clear(c.held[o.typeURL])
			continue
		}
		if o.sub.wildcard && len(o.sub.names) > 0 {
			o.explicit = true
		}
		var versions map[string]string
		if c.delta {
			versions = c.initialVersions(o.typeURL, o.sub, forgets)
		}
		c.session(o.typeURL).open(o.typeURL, o.sub, o.explicit, versions)
		if c.m.chance(70) {
			c.m.settle()
		}
	}
}

func (c *modelClient) initialVersions(typeURL string, sub modelSub, forgets bool) map[string]string {
	if forgets {
		clear(c.held[typeURL])
		return nil
	}
	versions := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.held[typeURL])) {
		versions[name] = c.held[typeURL][name].version
		if c.m.chance(10) {
			versions[name] = "wrong"
		}
	}
	for _, name := range append(slices.Clone(modelNames[typeURL]), "nope") {
		if _, held := c.held[typeURL][name]; !held && sub.matches(name) && c.m.chance(5) {
			versions[name] = "wrong"
		}
	}
	return versions
}

func (c *modelClient) resume() {
	if c.paused {
		c.m.logf("%s reads", c.name)
	}
	c.paused = false
}

func (c *modelClient) answerAll() {
	for _, s := range c.sessions {
		for _, typeURL := range modelTypes {
			if w := s.watches[typeURL]; w != nil {
				s.answer(w)
			}
		}
	}
}

// step does something at random.
func (c *modelClient) step() {
	typeURL := c.m.pick(modelTypes)
	s := c.session(typeURL)
	w := s.watches[typeURL]
	n := c.m.rng.IntN(100)
	switch {
	case n < 12:
		c.answerAll()
	case n < 22:
		c.m.logf("%s reads: %t", c.name, c.paused)
		c.paused = !c.paused
	case n < 30:
		c.reconnect()
	case w == nil && c.auto && n < 60: // as Envoy starts
		for _, typeURL := range []string{resourcev3.ClusterType, resourcev3.ListenerType} {
			if s := c.session(typeURL); s.watches[typeURL] == nil {
				s.open(typeURL, modelSub{wildcard: true, names: map[string]bool{}}, c.m.chance(50), nil)
			}
		}
	case w == nil:
		s.open(typeURL, c.subscription(typeURL), c.m.chance(30), nil)
	case n < 42 && !c.delta:
		if c.canRepeat(w) {
			s.repeat(w)
		}
	case c.auto && typeURL == resourcev3.EndpointType:
	case c.delta:
		c.changeDelta(s, w)
	default:
		c.changeSotw(s, w)
	}
}

// canRepeat reports whether the repetition of a request must be answered: all responses
// have been read and acknowledged, and the node has something that the client asks for.
func (c *modelClient) canRepeat(w *modelWatch) bool {
	if c.m.racy || c.paused || len(w.pending) > 0 || w.last() == nil || w.last().rejected || c.node.state() == nil {
		return false
	}
	for name, it := range c.node.state()[w.typeURL] {
		if w.sub.matches(name) && w.content(name) == it.bytes {
			return true
		}
	}
	return false
}

// names returns a few names of a type, some of which do not exist.
func (c *modelClient) names(typeURL string) []string {
	all := append(slices.Clone(modelNames[typeURL]), "nope")
	if typeURL == resourcev3.EndpointType {
		all = append(all, modelPool+"2")
		if c.delta {
			all = append(all, modelPool+"*")
		}
	}
	var names []string
	for range 1 + c.m.rng.IntN(3) {
		names = append(names, c.m.pick(all))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *modelClient) subscription(typeURL string) modelSub {
	sub := modelSub{names: map[string]bool{}}
	wildcard := 20
	switch {
	case isFull(typeURL):
		wildcard = 80
	case !c.delta:
		wildcard = 0
	}
	sub.wildcard = c.m.chance(wildcard)
	return c.withNames(sub, typeURL)
}

func (c *modelClient) withNames(sub modelSub, typeURL string) modelSub {
	if !sub.wildcard {
		for _, name := range c.names(typeURL) {
			sub.names[name] = true
		}
	}
	return sub
}

func (c *modelClient) changeDelta(s *modelSession, w *modelWatch) {
	var subscribe, unsubscribe []string
	if c.m.chance(60) {
		subscribe = c.names(w.typeURL)
	}
	for _, name := range slices.Sorted(maps.Keys(w.sub.names)) {
		if c.m.chance(30) && !slices.Contains(subscribe, name) {
			unsubscribe = append(unsubscribe, name)
		}
	}
	if len(w.subscribed["*"]) > 0 && c.m.chance(15) {
		if w.sub.wildcard {
			unsubscribe = append(unsubscribe, "*")
		} else {
			subscribe = append(subscribe, "*")
		}
	}
	if len(subscribe)+len(unsubscribe) > 0 {
		s.change(w, subscribe, unsubscribe)
	}
}

func (c *modelClient) changeSotw(s *modelSession, w *modelWatch) {
	var subscribe, unsubscribe []string
	if !w.sub.wildcard || c.m.chance(30) {
		for _, name := range c.names(w.typeURL) {
			if !w.sub.names[name] && c.m.chance(60) {
				subscribe = append(subscribe, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.sub.names)) {
		if c.m.chance(30) {
			unsubscribe = append(unsubscribe, name)
		}
	}
	if w.sub.wildcard && len(subscribe) > 0 && c.m.chance(70) && len(w.subscribed["*"]) == 0 {
		subscribe = append(subscribe, "*") // stays wildcard
	}
	if len(subscribe)+len(unsubscribe) > 0 {
		s.change(w, subscribe, unsubscribe)
	}
}
