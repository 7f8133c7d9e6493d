package xdsserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal/journal"
)

// Client is one open stream.
type Client struct {
	// Node is the client's node id, which is empty before its first request.
	Node string
	// Peer is its network address.
	Peer  string
	Since time.Time
	// Delta reports that it uses the delta protocol, and not SotW.
	Delta bool
	Types []ClientType
}

// ClientType is what a client has of one type.
type ClientType struct {
	TypeURL  string
	Wildcard bool
	// Names are the first of the names that the client subscribes to, sorted, and NumNames
	// is the number of all.
	Names    []string
	NumNames int
	// Sent, Acked and Rejected are the last answers that the client was sent, has
	// acknowledged and has rejected.
	Sent, Acked, Rejected AnswerStatus
	// RejectedError is the beginning of the client's error about the last answer that it
	// rejected.
	RejectedError string
	// Complete is the sequence up to which the client has acknowledged everything.
	Complete journal.Sequence
	// Warming reports that the client was sent clusters and has not replied: Envoy replies
	// when they are warm.
	Warming bool
}

// AnswerStatus identifies an answer by the sequence of the state that it was made from, and
// its version. It is zero if there was none.
type AnswerStatus struct {
	Sequence journal.Sequence
	Version  string
}

// Rejection is an answer that a client rejected.
type Rejection struct {
	Node, Peer string
	TypeURL    string
	Version    string
	// Sequence is that of the state from which the answer was made.
	Sequence journal.Sequence
	// Error is the beginning of the client's error. It is omitted for secrets.
	Error string
}

// maxClientNames bounds ClientType.Names.
const maxClientNames = 100

// Clients returns the open streams, sorted by node and time.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	out := make([]Client, 0, len(all))
	for _, of := range all {
		out = append(out, of.client(func(*subscription) bool { return true }))
	}
	slices.SortFunc(out, func(a, b Client) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

// client returns the client with the types that are asked for.
func (s *session) client(of func(*subscription) bool) Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Client{Node: s.nodeID, Peer: s.peer, Since: s.since, Delta: s.delta}
	for _, sub := range s.subs {
		if !of(sub) {
			continue
		}
		t := sub.status
		t.Wildcard, t.NumNames, t.Complete = sub.wildcard, len(sub.names), sub.complete
		t.Names = firstNames(sub.names)
		t.Warming = sub.traits.rank == clusterRank && s.clustersPending()
		c.Types = append(c.Types, t)
	}
	return c
}

// firstNames returns the first names, sorted. It does not sort all of them, of which there
// may be very many.
func firstNames(names map[string]struct{}) []string {
	first := make([]string, 0, min(len(names), maxClientNames))
	for name := range names {
		at, _ := slices.BinarySearch(first, name)
		switch {
		case len(first) < maxClientNames:
			first = slices.Insert(first, at, name)
		case at < len(first):
			copy(first[at+1:], first[at:])
			first[at] = name
		}
	}
	return first
}

func (s *Server) sessionsOf(node string) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.byNode[node]))
}

// WaitAcked waits until all connected clients of a node have acknowledged all their types
// as of a sequence, which an update has returned. When ctx is done first, the error is a
// [*NotAckedError], which wraps the context's. A node id without a client is acknowledged
// by all of them. Clients that connect or leave meanwhile count as they come and go. An
// answer that was rejected is not acknowledged until a later one of its type is.
func (s *Server) WaitAcked(ctx context.Context, node string, seq journal.Sequence) error {
	changed := make(chan struct{}, 1)
	stop := s.replies.Watch(node, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	// An event of another node wakes no client of this one, and the sequence may be that of
	// such an event.
	for _, of := range s.sessionsOf(node) {
		of.wake()
	}
	for {
		pending := s.notAcked(node, seq)
		if len(pending) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &NotAckedError{Node: node, Sequence: seq, Clients: pending, cause: ctx.Err()}
		}
	}
}

// notAcked returns the clients of a node that have not acknowledged a sequence, with the
// types that they have not.
func (s *Server) notAcked(node string, seq journal.Sequence) []Client {
	var out []Client
	for _, of := range s.sessionsOf(node) {
		c := of.client(func(sub *subscription) bool { return sub.complete < seq && sub.node != nil })
		if len(c.Types) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// NotAckedError is the error about clients that have not acknowledged a sequence.
type NotAckedError struct {
	Node     string
	Sequence journal.Sequence
	// Clients are these clients, each with the types that it has not acknowledged.
	Clients []Client

	cause error
}

// Error names the first of the clients.
func (e *NotAckedError) Error() string {
	c := e.Clients[0]
	t := c.Types[0]
	reason := "not acknowledged"
	if t.RejectedError != "" && t.Rejected.Sequence >= e.Sequence {
		reason = "rejected: " + t.RejectedError
	}
	return fmt.Sprintf("wait until node %q has sequence %d: %v: %d clients have not acknowledged it, among them %s: type %s %s",
		e.Node, uint64(e.Sequence), e.cause, len(e.Clients), c.Peer, t.TypeURL, reason)
}

// Unwrap returns the context's error.
func (e *NotAckedError) Unwrap() error { return e.cause }

const (
	maxErrorText = 512
	maxNodeText  = 256
)

// rejectedText returns the part of a client's error that may be logged: its first line,
// bounded, and nothing for secrets. Envoy's later lines may print the resource.
func rejectedText(typeURL, text string) string {
	if typeURL == resourcev3.SecretType {
		return "(omitted for secrets)"
	}
	text, _, _ = strings.Cut(text, "\n")
	return cut(text, maxErrorText)
}

// bounded returns a node id or another text of a client as it is logged.
func bounded(text string) string { return cut(text, maxNodeText) }

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
