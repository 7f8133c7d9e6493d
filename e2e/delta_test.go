package e2e

import (
	"fmt"
	"path"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
)

// subscription is the subscription of a delta client to a type.
type subscription struct {
	name  string
	names []string
}

var subscriptions = []subscription{
	{"wildcard", []string{"*"}},
	{"wildcard without names", nil},
	{"by name", []string{"keep", "change", "remove", "add"}},
}

// deltaClient is a client of one type of one node.
type deltaClient struct {
	typeURL string
	subscription
	node string
	have served
}

func deltaClients() []*deltaClient {
	var out []*deltaClient
	for _, typeURL := range []string{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.SecretType,
	} {
		for _, s := range subscriptions {
			out = append(out, &deltaClient{typeURL: typeURL, subscription: s, node: fmt.Sprintf("%s %s", path.Ext(typeURL)[1:], s.name), have: newServed()})
		}
	}
	return out
}

// TestDeltaReconnect kills the daemon while delta clients are connected. They reconnect
// with their versions and receive only the changes.
func TestDeltaReconnect(t *testing.T) {
	d := newDaemon(t)
	d.start()
	conn := dial(t, d)
	clients := deltaClients()
	for _, c := range clients {
		d.put(c.node, "1", newResource(c.typeURL, "keep", "1"), newResource(c.typeURL, "change", "1"), newResource(c.typeURL, "remove", "1"))
		s := openDelta(t, conn, c.node)
		s.subscribe(c.typeURL, nil, c.names...)
		sent, removed := s.receive(c.typeURL, c.have)
		require.ElementsMatch(t, []string{"keep", "change", "remove"}, sent)
		require.Empty(t, removed)
	}

	t.Run("unchanged", func(t *testing.T) {
		d.kill()
		d.start()
		for _, c := range clients {
			t.Run(c.node, func(t *testing.T) {
				s := openDelta(t, conn, c.node)
				s.subscribe(c.typeURL, c.have.versions, c.names...)
				// Everything else must arrive before this change.
				d.patch(c.node, "2", []object{newResource(c.typeURL, "keep", "2")}, nil)
				sent, removed := s.until(c, "keep")
				require.Equal(t, []string{"keep"}, sent)
				require.Empty(t, removed)
			})
		}
	})

	t.Run("changed", func(t *testing.T) {
		d.kill()
		d.start()
		for _, c := range clients {
			d.patch(c.node, "3",
				[]object{newResource(c.typeURL, "change", "3"), newResource(c.typeURL, "add", "3")},
				[]object{name(c.typeURL, "remove")})
		}
		for _, c := range clients {
			t.Run(c.node, func(t *testing.T) {
				s := openDelta(t, conn, c.node)
				s.subscribe(c.typeURL, c.have.versions, c.names...)
				sent, removed := s.receive(c.typeURL, c.have)
				require.ElementsMatch(t, []string{"change", "add"}, sent)
				require.Equal(t, []string{"remove"}, removed)

				d.patch(c.node, "4", []object{newResource(c.typeURL, "keep", "4")}, nil)
				sent, removed = s.until(c, "keep")
				require.Equal(t, []string{"keep"}, sent)
				require.Empty(t, removed)
			})
		}
	})

	t.Run("emptied", func(t *testing.T) {
		for _, c := range clients {
			d.put(c.node, "5")
		}
		d.kill()
		d.start()
		for _, c := range clients {
			t.Run(c.node, func(t *testing.T) {
				s := openDelta(t, conn, c.node)
				s.subscribe(c.typeURL, c.have.versions, c.names...)
				sent, removed := s.receive(c.typeURL, c.have)
				require.Empty(t, sent)
				require.ElementsMatch(t, []string{"keep", "change", "add"}, removed)
			})
		}
	})
}

// until receives responses until a resource has changed, and returns all names.
func (s *delta) until(c *deltaClient, name string) (sent, removed []string) {
	s.t.Helper()
	before := c.have.versions[name]
	for c.have.versions[name] == before {
		more, gone := s.receive(c.typeURL, c.have)
		sent, removed = append(sent, more...), append(removed, gone...)
	}
	return sent, removed
}
