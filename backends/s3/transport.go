package s3

import (
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/xdswal/xdswal/internal/httpidle"
	"github.com/xdswal/xdswal/internal/objectstore"
)

// newHTTPClient returns the client for all requests of the SDK, including those for
// credentials. Dialing, the TLS handshake and a silent peer have timeouts.
func newHTTPClient(idle time.Duration) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { httpidle.Bound(tr, idle) })
}

// storeClient returns the client for requests to the store.
func storeClient(sdk aws.HTTPClient, wrap func(http.RoundTripper) http.RoundTripper) (*http.Client, error) {
	var tr http.RoundTripper
	if c, ok := sdk.(*awshttp.BuildableClient); ok {
		tr = c.GetTransport() // with the authorities of AWS_CA_BUNDLE
	}
	if wrap != nil {
		if tr = wrap(tr); tr == nil {
			return nil, invalid("WrapTransport", "returned nil")
		}
	}
	return objectstore.Client(tr), nil
}
