package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/xdswal/xdswal/internal/envoytest"
)

type settings struct {
	binary                string
	updates, kills, swaps int
	seed                  uint64
	protocol              envoytest.Protocol
}

// demo is a daemon with an Envoy, whose requests two upstreams answer.
type demo struct {
	settings
	began     time.Time
	rand      *rand.Rand
	daemon    *daemon
	envoy     *envoytest.Envoy
	upstreams []*envoytest.Upstream
	client    *envoytest.Client
	builder   envoytest.Builder
	addr      string // of Envoy's listener

	version int // of the last update that has returned
	model   envoytest.Model

	// What happened.
	acked, unanswered, lost int
	updated, recovered      []time.Duration
	swapped                 []time.Duration
	rejections              int64
}

func newDemo(ctx context.Context, s settings, envoy, dir string) (*demo, error) {
	d := &demo{
		settings: s, began: time.Now(), rand: rand.New(rand.NewPCG(s.seed, 0)),
		// An Envoy that is not sent what it waits for waits for ever.
		builder: envoytest.Builder{Protocol: s.protocol, FetchTimeout: 0},
	}
	if err := d.start(ctx, envoy, dir); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *demo) start(ctx context.Context, envoy, dir string) (err error) {
	if d.addr, err = envoytest.FreeAddr(ctx); err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		u, err := envoytest.NewUpstream(ctx, name, time.Millisecond)
		if err != nil {
			return err
		}
		d.upstreams = append(d.upstreams, u)
	}
	if d.daemon, err = newDaemon(ctx, d.binary, dir); err != nil {
		return err
	}
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	d.say("The daemon serves xDS on %s. Its journal is in %s.", d.daemon.xds, d.daemon.dir)
	d.envoy, err = envoytest.Start(ctx, envoytest.Options{
		Binary: envoy, Dir: dir, Node: node, Server: d.daemon.xds, Protocol: d.protocol,
	})
	if err != nil {
		return err
	}
	d.say("Envoy has started and has no configuration. It fetches it over %s.", d.protocol)
	return nil
}

// close ends what is still running.
func (d *demo) close() {
	if d.client != nil {
		d.client.Stop()
	}
	if d.envoy != nil {
		d.envoy.Stop()
	}
	if d.daemon != nil {
		d.daemon.kill()
	}
	for _, u := range d.upstreams {
		u.Close()
	}
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf("[%5.1fs] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// set makes one update, and waits until Envoy uses it.
func (d *demo) set(ctx context.Context, m envoytest.Model) error {
	if err := d.daemon.put(ctx, d.version+1, m.Resources(d.builder, d.addr)); err != nil {
		return err
	}
	d.version++
	d.acked++
	d.model = m
	return d.await(ctx)
}

// await waits until Envoy uses the last update.
func (d *demo) await(ctx context.Context) error {
	_, diff, err := d.envoy.Await(ctx, d.model.Resources(d.builder, d.addr), stepTimeout)
	if err != nil {
		return err
	}
	if diff != "" {
		return fmt.Errorf("envoy does not use update %d after %s: %s", d.version, stepTimeout, diff)
	}
	return nil
}

func (d *demo) begin(ctx context.Context) error {
	start := time.Now()
	if err := d.set(ctx, envoytest.NewModel(d.upstreams...)); err != nil {
		return err
	}
	if _, err := envoytest.Get(ctx, d.addr); err != nil {
		return fmt.Errorf("the first request: %w", err)
	}
	d.say("The first update, with a cluster, its endpoints, a listener and a route, was durable and in use %s later.", millis(time.Since(start)))
	d.client = envoytest.NewClient(ctx, d.addr, 4, 2*time.Millisecond)
	d.say("From now on, a client sends requests through Envoy on 4 connections, without retries.")
	return nil
}

func (d *demo) update(ctx context.Context) error {
	for range d.updates {
		start := time.Now()
		if err := d.set(ctx, d.model.Change(d.rand, d.upstreams)); err != nil {
			return err
		}
		d.updated = append(d.updated, time.Since(start))
	}
	d.say("%d random updates of clusters, endpoints, listener and route: each was in use after %s.", d.updates, spread(d.updated))
	return nil
}

// crash kills the daemon during updates. Its journal alone says afterwards what to serve.
func (d *demo) crash(ctx context.Context) error {
	before := d.acked
	for range d.kills {
		if err := d.crashOnce(ctx); err != nil {
			return err
		}
	}
	d.say("kill -9, %d times, during %d updates, %d of which had not returned.", d.kills, d.acked-before+d.unanswered, d.unanswered)
	d.say("Each time the daemon restarted from its journal alone; Envoy had reconnected and used its last update after %s.", spread(d.recovered))
	return nil
}

func (d *demo) crashOnce(ctx context.Context) error {
	ended := make(chan envoytest.Model, 1)
	go func() { ended <- d.write(ctx) }()
	if err := pause(ctx, time.Duration(d.rand.Int64N(int64(500*time.Millisecond)))); err != nil {
		return err
	}
	d.daemon.kill()
	unanswered := <-ended
	d.unanswered++
	start := time.Now()
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	got, err := d.daemon.version(ctx)
	if err != nil {
		return err
	}
	switch got {
	case d.version:
	case d.version + 1:
		d.version, d.model = got, unanswered
	default:
		d.lost++
		return fmt.Errorf("the daemon has update %d after the restart, and update %d had returned", got, d.version)
	}
	if err := d.await(ctx); err != nil {
		return err
	}
	d.recovered = append(d.recovered, time.Since(start))
	return nil
}

// write makes updates until one is not answered, which it returns.
func (d *demo) write(ctx context.Context) envoytest.Model {
	r := rand.New(rand.NewPCG(d.seed, uint64(d.version)))
	for {
		next := d.model.Change(r, d.upstreams)
		if err := d.daemon.put(ctx, d.version+1, next.Resources(d.builder, d.addr)); err != nil {
			return next
		}
		d.version++
		d.acked++
		d.model = next
		if pause(ctx, time.Duration(r.Int64N(int64(20*time.Millisecond)))) != nil {
			return next
		}
	}
}

func pause(ctx context.Context, t time.Duration) error {
	select {
	case <-time.After(t):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *demo) swap(ctx context.Context) error {
	for i := range d.swaps {
		start := time.Now()
		if err := d.set(ctx, d.model.Swap(fmt.Sprint("swap-", i), d.upstreams[i%len(d.upstreams)])); err != nil {
			return err
		}
		d.swapped = append(d.swapped, time.Since(start))
	}
	d.say("%d updates, each of which replaces a cluster and the route to it: in use after %s.", d.swaps, spread(d.swapped))
	return nil
}

// reject sets a listener that Envoy rejects, then others updates, then a good listener.
func (d *demo) reject(ctx context.Context) error {
	addr, err := envoytest.FreeAddr(ctx)
	if err != nil {
		return err
	}
	put := func(other envoytest.Resource) error {
		d.version++
		d.acked++
		return d.daemon.put(ctx, d.version, append(d.model.Resources(d.builder, d.addr), other))
	}
	rejections := func() (int64, error) {
		return d.envoy.Sum(ctx, `^listener_manager\.lds\.update_rejected$`)
	}
	if err := put(d.builder.BadListener("other", "", addr, "http")); err != nil {
		return err
	}
	if err := until(ctx, "envoy rejects the listener", func() (bool, error) {
		n, err := rejections()
		return n > 0, err
	}); err != nil {
		return err
	}
	const others = 10
	for range others {
		d.model.Route++
		if err := put(d.builder.BadListener("other", "", addr, "http")); err != nil {
			return err
		}
		if err := until(ctx, "envoy uses the next route", func() (bool, error) {
			config, err := d.envoy.Config(ctx)
			if err != nil {
				return false, err
			}
			diff, err := config.Diff(d.model.Resources(d.builder, d.addr)[1:2])
			return !strings.HasPrefix(diff, "RouteConfiguration"), err
		}); err != nil {
			return err
		}
	}
	if d.rejections, err = rejections(); err != nil {
		return err
	}
	if err := put(d.builder.Listener("other", "", addr, "http")); err != nil {
		return err
	}
	if err := until(ctx, "the corrected listener answers", func() (bool, error) {
		_, err := envoytest.Get(ctx, addr)
		return err == nil, nil
	}); err != nil {
		return err
	}
	d.say("Envoy rejected a listener, and was sent it %d time(s); %d other updates were in use meanwhile, and the corrected listener after them.", d.rejections, others)
	return nil
}

// until waits for a condition.
func until(ctx context.Context, what string, is func() (bool, error)) error {
	deadline := time.Now().Add(stepTimeout)
	for {
		ok, err := is()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait until %s: not after %s", what, stepTimeout)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}

// summarize prints what happened, and reports whether all of it is as it should be.
func (d *demo) summarize(ctx context.Context) bool {
	timeouts, err := d.envoy.FetchTimeouts(ctx)
	if err != nil {
		timeouts = -1
	}
	counts := d.client.Stop()
	d.say("Done.\n")
	for _, line := range []struct {
		name  string
		value string
	}{
		{"updates that returned", fmt.Sprintf("%d, %d of them lost", d.acked, d.lost)},
		{"update to its use in Envoy", spread(d.updated)},
		{"kills of the daemon", fmt.Sprint(d.kills)},
		{"restart to use in Envoy", spread(d.recovered)},
		{"swaps of cluster and route", fmt.Sprintf("%d, in use after %s", d.swaps, spread(d.swapped))},
		{"rejected listener", fmt.Sprintf("sent %d time(s)", d.rejections)},
		{"waits of Envoy in vain", fmt.Sprint(timeouts)},
		{"answers of the upstreams", fmt.Sprintf("%d and %d", d.upstreams[0].Requests(), d.upstreams[1].Requests())},
		{"requests", fmt.Sprint(counts.Requests)},
	} {
		fmt.Printf("%-28s %s\n", line.name, line.value)
	}
	fmt.Printf("%d failed requests\n", counts.Failed)
	for cause, n := range counts.Causes {
		fmt.Printf("  %d: %s\n", n, cause)
	}
	return counts.Failed == 0 && counts.Requests > 0 && d.lost == 0 && d.rejections == 1 && timeouts == 0
}

func millis(t time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(t)/float64(time.Millisecond))
}

func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(times))
	return fmt.Sprintf("%s at the median, %s at most", millis(sorted[len(sorted)/2]), millis(sorted[len(sorted)-1]))
}
