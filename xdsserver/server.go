// Package xdsserver serves the caches of a store to xDS clients.
//
// A [Server] replaces go-control-plane's: it has the same constructor, callbacks and
// services, in the state-of-the-world (SotW) and the delta protocol, for ADS, for each
// separate service, and for REST. It answers from the store's immutable state. What a
// client has is the state that it was last sent, and an answer is due when that differs
// from the state of its node.
//
// One stream is one session, across its types. It keeps these rules, each of which is
// there because a real Envoy hangs or fails requests without it; docs/delivery.md has
// them in full:
//
//   - Each cluster that is added or changed is followed by its endpoints on that stream.
//   - A delta client that asks for endpoints before clusters is sent all that it names.
//   - A name that is subscribed again is answered.
//   - The answers of one change are in the order CDS, EDS, LDS, RDS, then the rest.
//   - No type is withheld. A name that does not exist is answered.
//   - Clusters and endpoints are added first, what refers to them is sent when the client
//     has acknowledged that, and what nothing refers to any more is removed last.
//     [Options.AckTimeout] bounds each wait.
//   - What a client rejected is sent again only when it changes.
//   - Contents decide what has changed, not versions.
//   - A heartbeat of the SotW protocol contains the resources.
//   - A node that is cleared leaves its clients as they are until it is set again.
//
// No update and no other client waits for a client that does not read. Such a client has
// at most one answer waiting, and the next is made from the newest state when it reads.
package xdsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	restv3 "github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/lograte"
	"github.com/xdswal/xdswal/internal/option"
)

// Options are the settings of a server. Of each setting, zero is the default.
type Options struct {
	// Logger receives rejections, and streams that the server ends. The default discards
	// them.
	Logger *slog.Logger
	// Hooks report what clients do.
	Hooks Hooks
	// Types are type URLs, beside those that Envoy knows and those that the cache was told
	// of, that clients may request.
	Types []string
	// AckTimeout bounds the wait for a client to acknowledge clusters before it is sent
	// what refers to them, and then the wait before what nothing refers to any more is
	// removed. Default 5 seconds.
	AckTimeout time.Duration
	// HeartbeatInterval is the interval at which the TTLs of resources are renewed.
	// Default Off.
	HeartbeatInterval time.Duration

	// MaxNodeBytes bounds a client's node message; default 1 MiB.
	MaxNodeBytes int
	// MaxTypes bounds the types of a stream; default 64.
	MaxTypes int
	// MaxNames bounds the names that a stream subscribes to; default 1,000,000.
	MaxNames int
	// MaxNamesBytes bounds the sum of the lengths of these names, and of the names and
	// versions that a delta client has when the stream begins; default 256 MiB.
	MaxNamesBytes int
	// MaxOnDemandNames bounds the names that a stream subscribes to beside a wildcard;
	// default 100,000.
	MaxOnDemandNames int
	// MaxStreamsPerPeer bounds the open streams of one network address; default 100,000.
	// Without ADS, Envoy opens one stream for each cluster, route and secret.
	MaxStreamsPerPeer int

	// missingGrace is the delay after which a SotW client is told that an assignment does
	// not exist.
	missingGrace time.Duration
}

// defaultMissingGrace lets a control plane set a cluster and its assignment in two updates.
const defaultMissingGrace = time.Second

func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.missingGrace == 0 {
		o.missingGrace = defaultMissingGrace
	}
	return errors.Join(
		option.Number[time.Duration]{Field: "AckTimeout", Value: &o.AckTimeout, Default: 5 * time.Second, Least: 1}.Apply(),
		option.Number[time.Duration]{Field: "HeartbeatInterval", Value: &o.HeartbeatInterval, Default: option.Off, Least: 1, CanOff: true}.Apply(),
		option.Number[int]{Field: "MaxNodeBytes", Value: &o.MaxNodeBytes, Default: 1 << 20, Least: 1}.Apply(),
		option.Number[int]{Field: "MaxTypes", Value: &o.MaxTypes, Default: 64, Least: 1}.Apply(),
		option.Number[int]{Field: "MaxNames", Value: &o.MaxNames, Default: 1_000_000, Least: 1}.Apply(),
		option.Number[int]{Field: "MaxNamesBytes", Value: &o.MaxNamesBytes, Default: 256 << 20, Least: 1}.Apply(),
		option.Number[int]{Field: "MaxOnDemandNames", Value: &o.MaxOnDemandNames, Default: 100_000, Least: 1}.Apply(),
		option.Number[int]{Field: "MaxStreamsPerPeer", Value: &o.MaxStreamsPerPeer, Default: 100_000, Least: 1}.Apply(),
	)
}

// Hooks are called with what clients do. A hook may be nil, and must return soon: the
// stream that it is about waits for it.
type Hooks struct {
	// Rejected is called when a client rejects an answer.
	Rejected func(Rejection)
	// Refused is called when the server ends a stream that is over a bound or breaks the
	// protocol. The reason is one of a few constant texts.
	Refused func(node, peer, reason string)
}

// Server is an xDS server. It is safe for concurrent use.
type Server struct {
	restv3.Server

	ctx       context.Context //nolint:containedctx // As in go-control-plane: it ends all streams.
	cache     cachev3.Cache
	callbacks serverv3.Callbacks // nil if there are none
	opt       Options
	types     map[string]struct{}
	answers   answers
	// replies wakes WaitAcked, by node id, after a client has replied or left.
	replies feed.Hub
	// These bound what clients write to the log.
	refusals, rejections, unready *lograte.Limiter
	streams                       atomic.Int64 // number of all streams so far

	mu       sync.Mutex
	sessions map[*session]struct{}
	byNode   map[string]map[*session]struct{} // by node id, once it is known
	peers    map[string]int                   // number of streams by network address
}

var _ serverv3.Server = (*Server)(nil)

// NewServer returns a server of a cache. It has the parameters of go-control-plane's
// NewServer, which it replaces; callbacks may be nil. The cache is a SnapshotCache or a
// LinearCache of package xdscache, or a cachev3.MuxCache of such. NewServer panics for
// another cache, and for an option that is out of range. When ctx is done, all streams
// end, except for those whose client does not read: grpc.Server.Stop ends them, and its
// GracefulStop waits for them.
//
// Callbacks that are called with a response must not change it.
func NewServer(ctx context.Context, cache cachev3.Cache, callbacks serverv3.Callbacks, opts ...Options) *Server {
	var opt Options
	if len(opts) > 0 {
		opt = opts[0]
	}
	if err := opt.setDefaults(); err != nil {
		panic(fmt.Sprintf("xdsserver: %v", err))
	}
	switch cache.(type) {
	case feed.Cache, *cachev3.MuxCache:
	default:
		panic(fmt.Sprintf("xdsserver: cannot serve a %T: use a cache of package xdscache, or go-control-plane's server", cache))
	}
	s := &Server{
		ctx:       ctx,
		cache:     cache,
		callbacks: callbacks,
		opt:       opt,
		types:     map[string]struct{}{},
		sessions:  map[*session]struct{}{},
		byNode:    map[string]map[*session]struct{}{},
		peers:     map[string]int{},

		refusals:   lograte.New(firstLines),
		rejections: lograte.New(firstLines),
		unready:    lograte.New(firstLines),
	}
	var fetchCallbacks restv3.Callbacks = serverv3.CallbackFuncs{}
	if callbacks != nil {
		fetchCallbacks = callbacks
	}
	s.Server = restv3.NewServer(cache, fetchCallbacks)
	for _, url := range opt.Types {
		s.types[url] = struct{}{}
	}
	return s
}

// admits reports whether clients may request a type.
func (s *Server) admits(source feed.Source, typeURL string) bool {
	if _, ok := knownTypes[typeURL]; ok {
		return true
	}
	if _, ok := s.types[typeURL]; ok {
		return true
	}
	return source.Serves(typeURL)
}

// refuse logs and counts a stream that is over a bound, and returns the error that ends
// it.
func (s *Server) refuse(of *session, code codes.Code, reason, format string, args ...any) error {
	err := status.Errorf(code, format, args...)
	if omitted, ok := s.refusals.Allow(); ok {
		s.opt.Logger.Warn("xDS stream refused", "node", bounded(of.nodeID), "peer", of.peer, "reason", reason,
			"error", status.Convert(err).Message(), "omitted", omitted)
	}
	if s.opt.Hooks.Refused != nil {
		s.opt.Hooks.Refused(of.nodeID, of.peer, reason)
	}
	return err
}

// rejected logs and reports an answer that a client rejected.
func (s *Server) rejected(r *Rejection) {
	if omitted, ok := s.rejections.Allow(); ok {
		s.opt.Logger.Warn("client rejected resources", "node", bounded(r.Node), "peer", r.Peer, "type", r.TypeURL,
			"version", r.Version, "sequence", uint64(r.Sequence), "error", r.Error, "omitted", omitted)
	}
	hook.Call(s.opt.Hooks.Rejected, *r)
}

// firstLines is the number of lines of a kind that are logged at any rate. After that it is one a second, with the number of those that were
// omitted before it. Hooks receive each.
const firstLines = 100

// open registers a session.
func (s *Server) open(of *session) error {
	s.mu.Lock()
	host := hostOf(of.peer)
	over := s.peers[host] >= s.opt.MaxStreamsPerPeer
	if !over {
		s.sessions[of] = struct{}{}
		s.peers[host]++
	}
	s.mu.Unlock()
	if over {
		return s.refuse(of, codes.ResourceExhausted, "streams of a peer", "more than %d streams of %s are open; see Options.MaxStreamsPerPeer", s.opt.MaxStreamsPerPeer, host)
	}
	return nil
}

// close forgets a session.
func (s *Server) close(of *session) {
	of.close()
	s.mu.Lock()
	delete(s.sessions, of)
	delete(s.byNode[of.nodeID], of)
	if len(s.byNode[of.nodeID]) == 0 {
		delete(s.byNode, of.nodeID)
	}
	host := hostOf(of.peer)
	if s.peers[host]--; s.peers[host] <= 0 {
		delete(s.peers, host)
	}
	s.mu.Unlock()
	s.replies.Wake(of.nodeID)
}

// name records the node id of a session.
func (s *Server) name(of *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byNode[of.nodeID] == nil {
		s.byNode[of.nodeID] = map[*session]struct{}{}
	}
	s.byNode[of.nodeID][of] = struct{}{}
}

func hostOf(peer string) string {
	if host, _, err := net.SplitHostPort(peer); err == nil {
		return host
	}
	return peer
}
