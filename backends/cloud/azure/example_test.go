package azure_test

import (
	"context"
	"fmt"
	"net/url"

	"github.com/xdswal/xdswal/backends/cloud/azure"
)

// New makes no request to the store.
func Example() {
	u, err := url.Parse("azblob://snapshots/prod?account=fleet")
	if err != nil {
		panic(err)
	}
	cfg, err := azure.ParseURL(u)
	if err != nil {
		panic(err)
	}
	b, err := azure.New(context.Background(), cfg)
	fmt.Println(b, err)
	// Output: azblob://snapshots/prod?account=fleet <nil>
}
