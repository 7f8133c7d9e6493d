package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHeldStateOfTheWorldStreams restarts the daemon while clients hold streams
// of all types: each is sent everything again, at the same version and in the
// same bytes.
func TestHeldStateOfTheWorldStreams(t *testing.T) {
	d := newDaemon(t)
	d.start()
	const clients = 16
	streams := make([]*sotw, clients)
	had := make([]map[string]served, clients)
	conn := dial(t, d)
	for i := range streams {
		node := fmt.Sprint("node-", i%4)
		if i < 4 {
			d.put(node, fmt.Sprint("version-", i), everyType(node)...)
		}
		streams[i] = openSotW(t, conn, node)
		had[i] = subscribeAll(streams[i], nil)
	}
	for range 3 {
		d.kill()
		for _, s := range streams {
			s.awaitEnd()
		}
		d.start()
		for i, s := range streams {
			streams[i] = openSotW(t, conn, s.node)
			again := subscribeAll(streams[i], had[i])
			requireSame(t, had[i], again)
			require.Equal(t, len(allTypes)+1, countServed(again))
		}
	}
	// The streams are alive: what changes now is sent.
	d.put("node-1", "another", everyType("other")...)
	for range allTypes {
		resp, err := streams[1].stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "another", resp.GetVersionInfo())
	}
}

// subscribeAll asks for all types, as a client does that had them before.
func subscribeAll(s *sotw, had map[string]served) map[string]served {
	s.t.Helper()
	all := map[string]served{}
	for _, typeURL := range allTypes {
		s.ask(typeURL, had[typeURL].version, "")
		all[typeURL] = s.receive(typeURL)
		require.NotEmpty(s.t, all[typeURL].version)
	}
	return all
}

// everyType returns a resource of each type, and one that expires.
func everyType(content string) []object {
	var out []object
	for _, typeURL := range allTypes {
		out = append(out, newResource(typeURL, "a", content))
	}
	return append(out, withTTL(newResource(allTypes[0], "expires", content), "600s"))
}
