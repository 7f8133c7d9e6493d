package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// defaultCrashes is the number of crashes in each loop of TestEnvoyCrashLoop.
const (
	defaultCrashes = 25
	shortCrashes   = 5
)

// TestEnvoyCrashLoop updates the configuration of an Envoy under traffic, and within
// 300 ms of each update kills the daemon, which restarts without its data source, or cuts
// the connection to it. Then Envoy must use what the update has set, and no request may
// have failed.
func TestEnvoyCrashLoop(t *testing.T) {
	t.Parallel() // with TestEnvoyKeepalive
	crashes := defaultCrashes
	if testing.Short() {
		crashes = shortCrashes
	}
	crashes = envInt(t, "XDSWAL_E2E_ENVOY_CRASHES", crashes)
	envoyBinary(t)
	for _, protocol := range []envoytest.Protocol{{Delta: true}, {}} {
		for _, fetchTimeout := range []time.Duration{0, 3 * time.Second} {
			t.Run(fmt.Sprintf("%s, fetch timeout %s", protocol, fetchTimeout), func(t *testing.T) {
				seed := loopSeed(t)
				t.Logf("seed %d", seed)
				l := newCrashLoop(t, protocol, fetchTimeout, seed)
				for range crashes {
					l.round()
				}
				l.endTraffic()
				t.Logf("%d crashes (%d kills, %d cuts; %d updates were unanswered): %d stuck, %d slow; converged in %s at the median, %s at most; %s",
					crashes, l.kills, l.cuts, l.unanswered, l.stuck, l.slow,
					median(l.times).Round(time.Millisecond), slices.Max(l.times).Round(time.Millisecond), l.counts)
				require.Zero(t, l.stuck, "Envoys that do not use what was set")
				require.Zero(t, l.slow, "waits for the fetch timeout")
				require.Zero(t, l.counts.Failed, "failed requests")
			})
		}
	}
}

// crashLoop is an Envoy whose connection to the daemon goes through a proxy.
type crashLoop struct {
	*envoyNode
	rand   *rand.Rand
	proxy  *envoytest.Proxy
	client *envoytest.Client
	model  envoytest.Model

	kills, cuts, unanswered, stuck, slow int
	times                                []time.Duration
	counts                               envoytest.Counts
	timeouts                             int64 // of the running Envoy, counted already
	failed                               int   // of the running client, reported already
}

func newCrashLoop(t *testing.T, protocol envoytest.Protocol, fetchTimeout time.Duration, seed uint64) *crashLoop {
	d := newDaemon(t, "--log-level", "warn")
	d.start()
	proxy, err := envoytest.NewProxy(context.Background(), d.xds)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	l := &crashLoop{
		envoyNode: newEnvoyNode(t, d, protocol, fetchTimeout), rand: rand.New(rand.NewPCG(seed, 3)), proxy: proxy,
		counts: envoytest.Counts{Causes: map[string]int{}},
	}
	l.opts.Server = proxy.Addr
	l.model = envoytest.NewModel(l.a)
	l.set(l.model.Resources(l.Builder, l.addr)...)
	l.start()
	l.await()
	l.beginTraffic()
	return l
}

func (l *crashLoop) beginTraffic() {
	l.awaitAnswer(l.model.Answers()...)
	l.client, l.failed = envoytest.NewClient(context.Background(), l.addr, 2, 2*time.Millisecond), 0
}

func (l *crashLoop) endTraffic() {
	counts := l.client.Stop()
	l.counts.Requests += counts.Requests
	l.counts.Failed += counts.Failed
	for cause, n := range counts.Causes {
		l.counts.Causes[cause] += n
	}
}

// round makes one update and one crash, and checks the Envoy.
func (l *crashLoop) round() {
	l.t.Helper()
	next := l.model.Change(l.rand, []*envoytest.Upstream{l.a, l.b})
	version := strconv.Itoa(l.version + 1)
	answered := make(chan error, 1)
	go func() {
		body := object{"version": version, "resources": next.Resources(l.Builder, l.addr)}
		answered <- l.d.call(context.Background(), "PUT", nodePath(l.opts.Node, "snapshot"), body, nil)
	}()
	within := 300 * time.Millisecond
	if l.rand.IntN(2) == 0 {
		within = 20 * time.Millisecond // while responses and requests are on their way
	}
	<-time.After(time.Duration(l.rand.Int64N(int64(within))))
	cut := l.rand.IntN(4) == 0
	if cut {
		l.proxy.Cut()
		l.cuts++
	} else {
		l.d.kill()
		l.d.start()
		l.kills++
	}
	if err := <-answered; err != nil {
		require.False(l.t, cut, "%v", err)
		l.unanswered++
		if !l.survived(version) {
			next = l.model
		}
	}
	failed := l.client.Counts().Failed
	before := l.model
	l.model, l.resources = next, next.Resources(l.Builder, l.addr)
	l.version++
	l.check()
	if n := l.client.Counts().Failed; n > l.failed {
		l.t.Logf("crash %d (cut: %t): %d requests failed, %d of them before the reconnect, between %s and %s",
			l.kills+l.cuts, cut, n-l.failed, failed-l.failed, before, next)
		l.failed = n
	}
}

// survived reports whether an update is durable that was not answered.
func (l *crashLoop) survived(version string) bool {
	l.t.Helper()
	var doc struct{ Version string }
	l.d.must("GET", nodePath(l.opts.Node, "snapshot"), nil, &doc)
	return doc.Version == version
}

// check waits until the Envoy uses what was set. If it never does, it is replaced, so that
// the loop can continue.
func (l *crashLoop) check() {
	l.t.Helper()
	took, diff := l.converged(l.resources)
	l.times = append(l.times, took)
	if n := l.fetchTimeouts(); n > l.timeouts {
		l.slow++
		l.timeouts = n
	}
	if diff == "" {
		l.awaitAnswer(l.model.Answers()...)
		return
	}
	l.t.Logf("crash %d: envoy is stuck: %s", l.kills+l.cuts, diff)
	l.stuck++
	l.endTraffic()
	l.start()
	l.timeouts = 0
	l.await()
	l.beginTraffic()
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
