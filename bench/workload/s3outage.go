package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/gateway"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	noBackendName = "no backend"
	upName        = "bucket up"
	refusedName   = "bucket refuses connections"
	hangsName     = "bucket does not answer"
	outageWriters = 64
	// outageWindows is the number of windows of a round: long enough for several
	// attempts to ship the tail. A short run only shows that the workload works.
	outageWindows, outageWindowsShort = 6, 2
)

func outageWorkload(short bool) harness.Workload {
	return harness.Workload{
		Name: "s3-outage/64-writers",
		About: fmt.Sprintf("%d writers make one durable update of their own node at a time, while the store ships its tail every second. "+
			"Up: to a versitygw on the same machine, which shares its processors and its disk. Refuses: after the bucket was claimed, every connection is refused; does not answer: connections are accepted and never answered. "+
			"Then the bucket answers again, the store is closed, and an empty directory must restore from the bucket every update that has returned; close is the time to ship the rest and a last snapshot. Floor: no backend.", outageWriters),
		Metrics: []harness.Metric{
			{Name: "updates", Unit: "/s"},
			metricP50, metricP99,
			{Name: "cpu", Unit: "µs/update"},
			{Name: "shipments"},
			{Name: "requests"},
			{Name: "close", Unit: "ms"},
		},
		Comparisons: []harness.Comparison{
			{Metric: "updates", To: noBackendName}, {Metric: "updates", To: upName}, {Metric: "p99", To: upName},
		},
		Claims: outageClaims(short),
		Open: withGateway(func(_ context.Context, env harness.Env, g *gateway.Gateway) (harness.Prepared, error) {
			o := &outage{gateway: g, work: env.Dir, windows: outageWindows}
			if env.Short {
				o.windows = outageWindowsShort
			}
			for k := range 256 {
				o.changes = append(o.changes, corpus.Endpoints(endpointNumber(k%8), k))
			}
			return harness.Prepared{Candidates: []harness.Candidate{
				{Name: noBackendName, Round: o.withoutBackend},
				{Name: upName, Round: o.round(upName, nil)},
				{Name: refusedName, Round: o.round(refusedName, refuse)},
				{Name: hangsName, Round: o.round(hangsName, hang)},
			}}, nil
		}),
	}
}

// outageClaims are the claims for a failing bucket. A short run ends before anything is
// shipped.
func outageClaims(short bool) []harness.Claim {
	if short {
		return nil
	}
	return []harness.Claim{
		{Candidate: refusedName, Metric: "updates", To: upName, AtLeast: 0.9},
		{Candidate: hangsName, Metric: "updates", To: upName, AtLeast: 0.9},
	}
}

type outage struct {
	gateway *gateway.Gateway
	work    string
	// changes are messages; consecutive ones with the same name differ in content.
	changes []types.Resource
	windows time.Duration // the number of windows of a round
	rounds  int
}

// update executes the i-th update of a writer.
func (o *outage) update(ctx context.Context, cache *xdscache.SnapshotCache, writer, i int) error {
	return setOne(ctx, cache, typical.Node(writer), o.changes[i%len(o.changes)], strconv.Itoa(i))
}

func (o *outage) drive(ctx context.Context, r *harness.Round, cache *xdscache.SnapshotCache) (driven, error) {
	harness.Settle()
	cpu := harness.CPUTime()
	// first has executed update 0 of each writer.
	d, err := drive(ctx, outageWriters, o.windows*r.Window, func(ctx context.Context, writer, i int) error {
		return o.update(ctx, cache, writer, i+1)
	})
	if err != nil {
		return d, err
	}
	d.report(r, "updates")
	r.Report("cpu", float64((harness.CPUTime()-cpu).Microseconds())/float64(d.total))
	return d, nil
}

// first executes the first update of each writer.
func (o *outage) first(ctx context.Context, cache *xdscache.SnapshotCache) error {
	return parallel(ctx, outageWriters, func(writer int) error { return o.update(ctx, cache, writer, 0) })
}

func (o *outage) withoutBackend(ctx context.Context, r *harness.Round) (err error) {
	dir := filepath.Join(o.work, "none")
	store, err := open(ctx, xdswal.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx), os.RemoveAll(dir)) }()
	if err := o.first(ctx, store.cache); err != nil {
		return err
	}
	d, err := o.drive(ctx, r, store.cache)
	if err != nil {
		return err
	}
	return checkEvents(store, d)
}

func checkEvents(store *opened, d driven) error {
	if seq := int(store.State().Sequence()); seq != d.total+outageWriters {
		return fmt.Errorf("got %d events, want %d", seq, d.total+outageWriters)
	}
	return nil
}

// round measures a store whose bucket is replaced by a listener; it stays up if fail is
// nil.
func (o *outage) round(name string, fail func() (net.Listener, error)) func(context.Context, *harness.Round) error {
	return func(ctx context.Context, r *harness.Round) (err error) {
		o.rounds++
		prefix := "outage-" + strconv.Itoa(o.rounds)
		s := &shipping{outage: o, prefix: prefix, dir: filepath.Join(o.work, prefix), shipped: make(chan struct{}, 1)}
		if err := s.open(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		err = s.measure(ctx, r, fail)
		if closeErr := s.Close(ctx); err != nil || closeErr != nil {
			return errors.Join(err, closeErr)
		}
		return errors.Join(os.RemoveAll(s.dir), os.RemoveAll(o.gateway.Path(prefix)))
	}
}

// shipping is a store that ships to the bucket.
type shipping struct {
	*outage
	*opened
	prefix, dir string
	route       route
	shipped     chan struct{} // receives a value when a batch was shipped
	batches     atomic.Int64  // shipped batches
}

func (s *shipping) backend(ctx context.Context) (*s3.Backend, error) {
	cfg := s.gateway.Config(s.prefix)
	cfg.WrapTransport = s.route.wrap
	return s3.New(ctx, cfg)
}

// open opens the store and returns when the first updates are in the bucket.
func (s *shipping) open(ctx context.Context) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	s.opened, err = open(ctx, xdswal.Options{Dir: s.dir, Backend: b, Hooks: xdswal.Hooks{Compactor: compactor.Hooks{
		BatchWriteEnd: func(b compactor.Batch) {
			if b.Err != nil {
				return
			}
			s.batches.Add(1)
			select {
			case s.shipped <- struct{}{}:
			default:
			}
		},
	}}})
	if err != nil {
		return err
	}
	if err := s.first(ctx, s.cache); err != nil {
		return errors.Join(err, s.Close(ctx))
	}
	select {
	case <-s.shipped:
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), s.Close(ctx))
	}
}

// measure drives the store while its bucket fails, lets the bucket recover, closes the
// store, and checks that the bucket contains all events.
func (s *shipping) measure(ctx context.Context, r *harness.Round, fail func() (net.Listener, error)) error {
	var failing net.Listener
	if fail != nil {
		var err error
		if failing, err = fail(); err != nil {
			return err
		}
		defer failing.Close()
		s.route.divert(failing.Addr().String())
	}
	batches, requests := s.batches.Load(), s.route.requests.Load()
	d, err := s.drive(ctx, r, s.cache)
	if err != nil {
		return err
	}
	r.Report("shipments", float64(s.batches.Load()-batches))
	r.Report("requests", float64(s.route.requests.Load()-requests))
	if failing != nil {
		s.route.divert("")
		failing.Close()
	}
	if err := checkEvents(s.opened, d); err != nil {
		return err
	}
	start := time.Now()
	if err := s.Close(ctx); err != nil {
		return err
	}
	r.ReportTime("close", time.Since(start))
	return s.checkBucket(ctx)
}

// checkBucket checks that the state restored from the bucket is that of the store.
func (s *shipping) checkBucket(ctx context.Context) error {
	b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	dir := s.dir + "-restored"
	store, err := open(ctx, xdswal.Options{Dir: dir, Backend: b})
	if err != nil {
		return err
	}
	if store.State().Digest() != s.State().Digest() {
		err = errOtherState
	}
	return errors.Join(err, store.Close(ctx), os.RemoveAll(dir))
}

// route counts requests and sends them to their server or to another address.
type route struct {
	address  atomic.Pointer[string]
	requests atomic.Int64
}

// divert sends later requests to an address, or to their server if it is empty.
func (r *route) divert(address string) { r.address.Store(&address) }

func (r *route) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		r.requests.Add(1)
		if address := r.address.Load(); address != nil && *address != "" {
			req = req.Clone(req.Context())
			req.URL.Host = *address
		}
		return next.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// refuse returns a listener that is closed: its port refuses connections.
func refuse() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It does not block.
	if err != nil {
		return nil, err
	}
	return l, l.Close()
}

// hang returns a listener that accepts connections and never answers.
func hang() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It does not block.
	if err != nil {
		return nil, err
	}
	h := &hanging{Listener: l}
	go h.accept()
	return h, nil
}

type hanging struct {
	net.Listener
	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func (h *hanging) accept() {
	for {
		conn, err := h.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		if h.closed {
			conn.Close()
		}
		h.conns = append(h.conns, conn)
		h.mu.Unlock()
	}
}

// Close closes the connections too.
func (h *hanging) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, conn := range h.conns {
		conn.Close()
	}
	return h.Listener.Close()
}
