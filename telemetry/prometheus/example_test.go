package prometheushooks_test

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
	prometheushooks "github.com/xdswal/xdswal/telemetry/prometheus"
)

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, registry := context.Background(), prometheus.NewRegistry()

	metrics, err := prometheushooks.New(registry)
	if err != nil {
		panic(err)
	}
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: metrics.Hooks()})
	if err != nil {
		panic(err)
	}
	defer store.Close(ctx)
	metrics.Attach(store.Status)

	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "xdswal_epoch" || f.GetName() == "xdswal_degraded" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output:
	// xdswal_degraded 0
	// xdswal_epoch 1
}
