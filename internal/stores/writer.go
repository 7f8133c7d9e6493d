package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/journal"
)

const (
	// writerCommand makes this program one of the two writers of a race. Its arguments
	// are the backend's URL, the data directory and the writer's name.
	writerCommand = "writer"
	// claiming is the line that a writer prints when it is about to claim the prefix. It
	// claims after a line on its input.
	claiming = "claiming"

	// A writer updates for writeTime, and waits for shipTime until all is shipped.
	writeTime = time.Second
	shipTime  = 10 * time.Second
	// openTime bounds its start.
	openTime     = 20 * time.Second
	shipInterval = 20 * time.Millisecond
)

// report is what a writer prints when it ends, as JSON.
type report struct {
	// Err is the error of Open, without the directory. The writer reported nothing then.
	Err string
	// Fenced reports whether the writer was told that another one has taken over: by Open,
	// or later.
	Fenced bool
	// Shipped is the number of its updates that the store reported as shipped. They are
	// the first ones.
	Shipped int
}

// write opens a store, updates it, and prints a report. It ends without closing the store,
// as a lost machine does.
func write(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: got %d arguments, want 3", writerCommand, len(args))
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	b, err := openGated(ctx, args[0])
	if err != nil {
		return err
	}
	var r report
	s, err := xdswal.Open(ctx, xdswal.Options{Dir: args[1], Backend: b, ShipInterval: shipInterval})
	if err != nil {
		r = report{Err: errors.Unwrap(err).Error(), Fenced: errors.Is(err, xdswal.ErrFenced)}
	} else {
		r = update(s, args[2])
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// openGated opens a backend that waits for the other writer before it claims the prefix.
func openGated(ctx context.Context, rawURL string) (*s3.Backend, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := s3.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper { return &gate{next: next} }
	return s3.New(ctx, cfg)
}

// gate holds the first claim of an epoch until the other writer is about to claim it too:
// neither has then seen the other.
type gate struct {
	next http.RoundTripper
	once sync.Once
}

func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/epochs/") {
		g.once.Do(func() {
			fmt.Println(claiming)
			_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // Without the other side, this one has an end too.
		})
	}
	return g.next.RoundTrip(req)
}

// update makes updates until one fails, as the store is fenced or the time is over, and waits
// until they are shipped. Each is of a node of its own, so that none covers the loss of
// another.
func update(s *xdswal.Store, name string) report {
	first := s.Status().Sequence + 1
	cache := s.SnapshotCache(true, cachev3.IDHash{}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	var err error
	for i := 0; err == nil; i++ {
		var snapshot *cachev3.Snapshot
		snapshot, err = cachev3.NewSnapshot("1", map[resourcev3.Type][]types.Resource{resourcev3.ClusterType: {&clusterv3.Cluster{Name: name}}})
		if err == nil {
			err = cache.SetSnapshot(ctx, nodeName(name, i), snapshot)
		}
	}
	for end := time.Now().Add(shipTime); ; time.Sleep(shipInterval) {
		status := s.Status()
		r := report{Fenced: status.Shipper.Fenced != nil, Shipped: shipped(first, status.Shipper.Shipped)}
		if r.Fenced || status.Shipper.Shipped >= status.Sequence || time.Now().After(end) {
			return r
		}
	}
}

// shipped returns the number of updates from the first sequence to the last one.
func shipped(first, last journal.Sequence) int {
	if last < first {
		return 0
	}
	return int(last - first + 1)
}

func nodeName(writer string, update int) string { return fmt.Sprintf("%s-%d", writer, update) }
