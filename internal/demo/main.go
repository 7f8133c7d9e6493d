// Command demo shows on a real Envoy what xdswal is for: its daemon is killed again and
// again under updates and traffic, and no request fails. It exits with status 1 if one
// does, or if an update is lost, late or sent twice. Everything listens on loopback.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/xdswal/xdswal/internal/envoytest"
)

const (
	node = "demo"
	// demoTimeout bounds the demo, and stepTimeout each wait.
	demoTimeout = 2 * time.Minute
	stepTimeout = 15 * time.Second
)

func main() {
	var s settings
	flag.StringVar(&s.binary, "daemon", "bin/xdswal", "path of xdswal")
	flag.IntVar(&s.updates, "updates", 100, "updates while the daemon runs")
	flag.IntVar(&s.kills, "kills", 30, "kills of the daemon, each during updates")
	flag.IntVar(&s.swaps, "swaps", 40, "swaps of a cluster and the route to it")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "seed of the random choices")
	sotw := flag.Bool("sotw", false, "use the state-of-the-world protocol instead of the incremental one")
	flag.Parse()
	s.protocol = envoytest.Protocol{Delta: !*sotw}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	ok, err := run(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether everything worked.
func run(ctx context.Context, s settings) (bool, error) {
	envoy, err := envoytest.Find()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "xdswal-demo-")
	if err != nil {
		return false, err
	}
	d, err := newDemo(ctx, s, envoy, dir)
	if err != nil {
		return false, fmt.Errorf("%w (logs are in %s)", err, dir)
	}
	defer d.close()
	for _, step := range []func(context.Context) error{
		d.begin, d.update, d.crash, d.swap, d.reject,
	} {
		if err := step(ctx); err != nil {
			return false, fmt.Errorf("%w (logs are in %s)", err, dir)
		}
	}
	ok := d.summarize(ctx)
	if ok {
		d.close()
		return true, os.RemoveAll(dir)
	}
	return false, fmt.Errorf("see above (seed %d; logs are in %s)", s.seed, dir)
}
