// Package daemon implements xdswal serve: a store, an xDS server on its cache,
// and the admin interface.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/progress"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcedir"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	prometheushooks "github.com/xdswal/xdswal/telemetry/prometheus"
	"github.com/xdswal/xdswal/xdscache"
	"github.com/xdswal/xdswal/xdsserver"
)

// Run serves until ctx is done, then closes the clients' streams, waits until all
// returned updates are durable, and writes a last snapshot. It returns nil if the
// shutdown succeeded.
func Run(ctx context.Context, c Config, logs io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	logger, err := newLogger(c, logs)
	if err != nil {
		return err
	}
	d := &daemon{config: c, logger: logger, registry: prometheus.NewRegistry()}
	return d.run(ctx)
}

func newLogger(c Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("%s is %q: want debug, info, warn or error", c.name("log-level"), c.LogLevel)
	}
	opt := &slog.HandlerOptions{Level: level}
	switch c.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, fmt.Errorf("%s is %q: want text or json", c.name("log-format"), c.LogFormat)
}

type daemon struct {
	config   Config
	logger   *slog.Logger
	registry *prometheus.Registry
	store    *xdswal.Store
	cache    *xdscache.SnapshotCache
	// serverHooks are those of the xDS server.
	serverHooks xdsserver.Hooks
}

func (d *daemon) run(ctx context.Context) (err error) {
	creds, err := transport(d.config)
	if err != nil {
		return err
	}
	// Listen first, so that an address in use fails before the store is changed.
	var lc net.ListenConfig
	xdsListener, err := lc.Listen(ctx, "tcp", d.config.XDSAddr)
	if err != nil {
		return fmt.Errorf("%s: listen for xDS: %w", d.config.name("xds-addr"), err)
	}
	defer xdsListener.Close()
	adminListener, err := lc.Listen(ctx, "tcp", d.config.AdminAddr)
	if err != nil {
		return fmt.Errorf("%s: listen for the admin interface: %w", d.config.name("admin-addr"), err)
	}
	defer adminListener.Close()

	// The admin interface answers /healthz while the store is restored.
	handler := d.adminHandler(adminListener.Addr())
	stopAdmin, adminFailed := d.serveAdmin(adminListener, handler) //nolint:contextcheck // The shutdown begins when ctx is done.
	defer stopAdmin()

	if err := d.openStore(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.closeStore()) }() //nolint:contextcheck // As above.

	serverOptions := xdsserver.Options{Logger: d.logger, Hooks: d.serverHooks, HeartbeatInterval: d.config.Heartbeat}
	x := newXDSServer(d.config, xdsListener.Addr(), creds, d.cache, serverOptions) //nolint:contextcheck // Stop ends it, after the streams.
	xdsFailed := x.serve(xdsListener)
	defer x.stop()
	handler.Ready(admin.Service{Store: d.store, Cache: d.cache, Context: ctx})
	d.logger.Info("serving", "xds", xdsListener.Addr().String(), "admin", adminListener.Addr().String(), "dir", d.config.Dir)

	stopLoader := d.loadResources(ctx)
	defer stopLoader()
	select {
	case <-ctx.Done():
		d.logger.Info("shutting down")
		return nil
	case err := <-xdsFailed:
		return fmt.Errorf("serve xDS: %w", err)
	case err := <-adminFailed:
		return fmt.Errorf("serve the admin interface: %w", err)
	}
}

func (d *daemon) openStore(ctx context.Context) error {
	if info, err := os.Stat(d.config.Dir); err == nil && !info.IsDir() && !d.config.MemoryOnly {
		return fmt.Errorf("%s: %s is not a directory: name a directory, or one that does not exist", d.config.name("dir"), d.config.Dir)
	}
	sync, err := journal.ParseSyncPolicy(d.config.Sync)
	if err != nil {
		return fmt.Errorf("%s: %w", d.config.name("sync"), err)
	}
	backend, err := d.openBackend(ctx)
	if err != nil {
		return err
	}
	metrics, err := prometheushooks.New(d.registry)
	if err != nil {
		return err
	}
	downloads := xdswal.Hooks{Replay: replay.Hooks{Progress: progress.Log(d.logger, progress.DefaultInterval)}}
	opt := d.config.options()
	opt.Sync, opt.Backend = sync, backend
	opt.Hooks, opt.Logger = xdswal.JoinHooks(metrics.Hooks(), downloads), d.logger
	d.store, err = xdswal.Open(ctx, opt)
	switch {
	case err != nil && d.config.Follow != "":
		// Open reads only the backend of a follower.
		return fmt.Errorf("%s: %w", d.config.name("follow"), err)
	case err != nil:
		return err
	}
	metrics.Attach(d.store.Status)
	d.serverHooks = metrics.ServerHooks()
	d.cache = d.store.SnapshotCache(d.config.ADS, cachev3.IDHash{}, xdsLogger{d.logger})
	return nil
}

// openBackend opens the backend to ship to or to follow. It returns nil if there
// is none.
func (d *daemon) openBackend(ctx context.Context) (backends.Backend, error) {
	flag, url, open := "backend", d.config.Backend, backendurl.Open
	if d.config.Follow != "" {
		flag, url = "follow", d.config.Follow
		if d.config.Dir == "" {
			open = backendurl.OpenReadOnly // it cannot be promoted
		}
	}
	if url == "" {
		return nil, nil
	}
	b, err := open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.config.name(flag), err)
	}
	return b, nil
}

func (d *daemon) closeStore() error {
	ctx, cancel := context.WithTimeout(context.Background(), d.config.ShutdownTimeout)
	defer cancel()
	err := d.store.Close(ctx)
	if err == nil {
		d.logger.Info("closed", "sequence", uint64(d.store.State().Sequence()))
	}
	return err
}

func (d *daemon) adminHandler(addr net.Addr) *admin.Handler {
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if !isLoopback(addr) {
		d.logger.Warn("the admin interface is not on a loopback address; it has no authentication and shows private keys", "addr", addr.String())
	}
	return admin.New(d.config.MaxBodyBytes, promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}), isLoopback(addr), d.logger)
}

func isLoopback(addr net.Addr) bool {
	ap, err := netip.ParseAddrPort(addr.String())
	return err == nil && ap.Addr().IsLoopback()
}

// serveAdmin serves on l until stop is called. The channel failed receives the
// error if that ends before.
func (d *daemon) serveAdmin(l net.Listener, h http.Handler) (stop func(), failed <-chan error) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(d.logger.Handler(), slog.LevelWarn),
	}
	ch := make(chan error, 1)
	go func() { ch <- server.Serve(l) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}, ch
}

// loadResources loads the resource directory until stop is called.
func (d *daemon) loadResources(ctx context.Context) (stop func()) {
	if d.config.Resources == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	loader := &resourcedir.Loader{Dir: d.config.Resources, MaxBytes: d.config.MaxBodyBytes, Cache: d.cache, Logger: d.logger}
	done := make(chan struct{})
	go func() {
		defer close(done)
		loader.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
