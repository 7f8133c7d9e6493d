package httpidle_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/httpidle"
)

// A server that neither reads nor answers is an error of the deadline, also for a request
// that is still being sent.
func TestSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	tr := http.DefaultTransport.(*http.Transport).Clone()
	httpidle.Bound(tr, 100*time.Millisecond)
	defer tr.CloseIdleConnections()
	for _, size := range []int{0, 32 << 20} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+l.Addr().String(), bytes.NewReader(make([]byte, size)))
		require.NoError(t, err)
		_, err = tr.RoundTrip(req) //nolint:bodyclose // There is no answer.
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
}
