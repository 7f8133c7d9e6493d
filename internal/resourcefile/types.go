package resourcefile

import (
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// servedTypes are the type URLs that go-control-plane serves, indexed by
// types.ResponseType: the order in which ADS sends them.
var servedTypes = func() []string {
	urls := make([]string, types.UnknownType)
	for i := range urls {
		// The error is for numbers that are no response type, and these all are.
		urls[i], _ = cachev3.GetResponseTypeURL(types.ResponseType(i))
	}
	return urls
}()

var servedList = strings.Join(servedTypes, ", ")

func served(typeURL string) bool { return slices.Contains(servedTypes, typeURL) }

func shortType(typeURL string) string { return strings.TrimPrefix(typeURL, resource.APITypePrefix) }
