package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/s3test"
)

// TestFollow serves clients from a follower on S3, kills the writer, promotes the follower
// while a client holds its stream, and restarts the old writer with its stale directory.
func TestFollow(t *testing.T) {
	server := s3test.Start(t, s3test.WithTLS())
	server.Setenv(t)
	url := server.URL("fleet")
	writer := newDaemon(t, "--backend", url)
	writer.start()
	for _, node := range []string{"a", "b"} {
		writer.put(node, "1", everyType(node)...)
	}
	writer.awaitShipped()

	follower := newDaemon(t, "--follow", url, "--follow-interval", "50ms")
	follower.start()
	for _, node := range []string{"a", "b"} {
		requireSame(t, fetchAll(t, dial(t, writer), node), fetchAll(t, dial(t, follower), node))
	}
	stream := openSotW(t, dial(t, follower), "a")
	require.NotZero(t, countServed(subscribeAll(stream, nil)))

	// Clients of the follower receive the updates of the writer.
	seq := writer.put("a", "2", everyType("changed")...)
	for range allTypes {
		resp, err := stream.stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "2", resp.GetVersionInfo())
		stream.ask(resp.GetTypeUrl(), resp.GetVersionInfo(), resp.GetNonce())
	}
	s := follower.status()
	require.Equal(t, seq, s.Seq)
	require.Equal(t, writer.status().Backend.Epoch, s.Follower.Epoch)
	require.Empty(t, s.Follower.Error)
	require.Less(t, s.Follower.LagSeconds, timeout.Seconds())
	requireRejected := func(d *daemon, reason string) {
		t.Helper()
		var err *statusError
		require.ErrorAs(t, d.call(context.Background(), http.MethodPut, nodePath("a", "snapshot"), object{"version": "x", "resources": []object{}}, nil), &err)
		require.Equal(t, http.StatusConflict, err.status)
		require.Contains(t, err.body, reason)
	}
	requireRejected(follower, "follower")

	writer.kill()
	follower.must(http.MethodPost, "/v1/promote", nil, nil)
	require.Equal(t, seq, follower.status().Seq)
	follower.put("a", "3", everyType("after the promotion")...)
	for range allTypes {
		resp, err := stream.stream.Recv()
		require.NoError(t, err, "the stream is still open")
		require.Equal(t, "3", resp.GetVersionInfo())
	}
	follower.awaitShipped()

	// The old writer was superseded, and takes over again.
	writer.start()
	requireSame(t, fetchAll(t, dial(t, follower), "a"), fetchAll(t, dial(t, writer), "a"))
	require.EqualValues(t, 5, writer.status().Backend.Epoch)
	writer.put("b", "4", everyType("b")...)
	writer.awaitShipped()
	require.Eventually(t, func() bool {
		// The follower is fenced when it ships next.
		_ = follower.call(context.Background(), http.MethodPut, nodePath("b", "snapshot"), object{"version": "late", "resources": []object{}}, nil)
		return follower.status().Backend.Fenced != ""
	}, timeout, 20*time.Millisecond)
	requireRejected(follower, "fenced")
	require.NotEmpty(t, fetchAll(t, dial(t, follower), "a"), "a fenced writer still serves")
	writer.terminate()
	follower.terminate()
}
