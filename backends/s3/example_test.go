package s3_test

import (
	"context"
	"fmt"
	"net/url"

	"github.com/xdswal/xdswal/backends/s3"
)

// New makes no request to the store.
func Example() {
	u, err := url.Parse("s3://snapshots/prod?endpoint=https://store.example:9000&region=us-east-1&path_style=true")
	if err != nil {
		panic(err)
	}
	cfg, err := s3.ParseURL(u)
	if err != nil {
		panic(err)
	}
	b, err := s3.New(context.Background(), cfg)
	fmt.Println(b, err)
	// Output: s3://snapshots/prod?endpoint=https://store.example:9000 <nil>
}
