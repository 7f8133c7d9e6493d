package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSotWReconnect restarts the daemon while clients hold streams of all types: each
// receives everything again, with the same versions and bytes.
func TestSotWReconnect(t *testing.T) {
	d := newDaemon(t)
	d.start()
	const clients = 16
	streams := make([]*sotw, clients)
	before := make([]map[string]served, clients)
	conn := dial(t, d)
	for i := range streams {
		node := fmt.Sprint("node-", i%4)
		if i < 4 {
			d.put(node, fmt.Sprint("version-", i), everyType(node)...)
		}
		streams[i] = openSotW(t, conn, node)
		before[i] = subscribeAll(streams[i], nil)
	}
	for range 3 {
		d.kill()
		for _, s := range streams {
			s.awaitEnd()
		}
		d.start()
		for i, s := range streams {
			streams[i] = openSotW(t, conn, s.node)
			again := subscribeAll(streams[i], before[i])
			requireSame(t, before[i], again)
			require.Equal(t, len(allTypes)+1, countServed(again))
		}
	}
	// The streams receive later changes.
	d.put("node-1", "another", everyType("other")...)
	for range allTypes {
		resp, err := streams[1].stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "another", resp.GetVersionInfo())
	}
}

// subscribeAll requests all types as a client that has the versions of before, which may
// be nil.
func subscribeAll(s *sotw, before map[string]served) map[string]served {
	s.t.Helper()
	all := map[string]served{}
	for _, typeURL := range allTypes {
		s.ask(typeURL, before[typeURL].version, "")
		all[typeURL] = s.receive(typeURL)
		require.NotEmpty(s.t, all[typeURL].version)
	}
	return all
}

// everyType returns a resource of each type, and one with a TTL.
func everyType(content string) []object {
	var out []object
	for _, typeURL := range allTypes {
		out = append(out, newResource(typeURL, "a", content))
	}
	return append(out, withTTL(newResource(allTypes[0], "expires", content), "600s"))
}
