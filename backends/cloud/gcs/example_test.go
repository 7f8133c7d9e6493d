package gcs_test

import (
	"context"
	"fmt"
	"net/url"

	"github.com/xdswal/xdswal/backends/cloud/gcs"
)

// New makes no request to the store.
func Example() {
	u, err := url.Parse("gs://snapshots/prod?endpoint=http://127.0.0.1:4443")
	if err != nil {
		panic(err)
	}
	cfg, err := gcs.ParseURL(u)
	if err != nil {
		panic(err)
	}
	b, err := gcs.New(context.Background(), cfg)
	fmt.Println(b, err)
	// Output: gs://snapshots/prod?endpoint=http://127.0.0.1:4443 <nil>
}
