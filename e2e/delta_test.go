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

// isNamed reports whether the client names resources, and so is told which do not exist.
func (c *deltaClient) isNamed() bool { return len(c.names) > 1 }

// again returns what the client is sent again on a new stream. One that asks for endpoints
// and has not asked for clusters may be waiting for them, whatever it says it has.
func (c *deltaClient) again(names ...string) []string {
	if c.typeURL == resourcev3.EndpointType {
		return names
	}
	return nil
}

// missing returns the names that the client is told do not exist.
func (c *deltaClient) missing(names ...string) []string {
	if c.isNamed() {
		return names
	}
	return nil
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
		s.expect(c, []string{"keep", "change", "remove"}, c.missing("add"))
	}

	t.Run("unchanged", func(t *testing.T) {
		d.kill()
		d.start()
		for _, c := range clients {
			t.Run(c.node, func(t *testing.T) {
				s := openDelta(t, conn, c.node)
				s.subscribe(c.typeURL, c.have.versions, c.names...)
				s.expect(c, c.again("keep", "change", "remove"), c.missing("add"))
				d.patch(c.node, "2", []object{newResource(c.typeURL, "keep", "2")}, nil)
				s.expect(c, []string{"keep"}, nil)
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
				s.expect(c, append(c.again("keep"), "change", "add"), []string{"remove"})

				d.patch(c.node, "4", []object{newResource(c.typeURL, "keep", "4")}, nil)
				s.expect(c, []string{"keep"}, nil)
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
				s.expect(c, nil, append(c.missing("remove"), "keep", "change", "add"))
			})
		}
	})
}

// expect receives one response, and more until everything that is wanted was sent and
// removed: removals may follow in a response of their own. Nothing else may be in them.
func (s *delta) expect(c *deltaClient, wantSent, wantRemoved []string) {
	s.t.Helper()
	var sent, removed []string
	for first := true; first || len(sent) < len(wantSent) || len(removed) < len(wantRemoved); first = false {
		more, gone := s.receive(c.typeURL, c.have)
		sent, removed = append(sent, more...), append(removed, gone...)
	}
	require.ElementsMatch(s.t, wantSent, sent)
	require.ElementsMatch(s.t, wantRemoved, removed)
}
