package xdsserver

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// session is one stream: what its client wants of each type, has, and was sent. One
// goroutine changes it, and never while it sends: an answer is made from the newest state
// when the client has taken the one before.
type session struct {
	server *Server
	delta  bool
	// service is the type of a separate service, or "" for ADS.
	service string
	peer    string
	since   time.Time
	// changed is full while a node has changed since the session looked at it.
	changed chan struct{}

	mu     sync.Mutex // held to change what follows, and by others to read it
	node   *corev3.Node
	nodeID string
	nodes  map[feed.Source]*watchedNode
	subs   []*subscription // in the order in which they are answered
	nonce  uint64
	// edsFirst is set if the client asked for endpoints before clusters: it is waiting for
	// them, so its versions are not trusted.
	edsFirst bool
	// resumed is when a client asked for clusters, of which it had some when the stream
	// began: it has routes to them, and asks for those next.
	resumed time.Time
	// listened is when a client acknowledged listeners or scoped routes: it asks for the
	// routes that they name next.
	listened time.Time
	// blockedSince is when the first of the changes that are held back for the
	// acknowledgement of clusters was, or zero. All types share it, so that they stay in
	// order when the bound has passed.
	blockedSince time.Time
	// assignments are those of clusters that were sent before the client has asked for
	// endpoints.
	assignments   map[string]struct{}
	nextHeartbeat time.Time
}

func newSession(s *Server, delta bool, service, peer string, now time.Time) *session {
	return &session{
		server:        s,
		delta:         delta,
		service:       service,
		peer:          peer,
		since:         now,
		changed:       make(chan struct{}, 1),
		node:          &corev3.Node{}, // as in go-control-plane: callbacks read it before the first request
		nodes:         map[feed.Source]*watchedNode{},
		nextHeartbeat: now.Add(s.opt.HeartbeatInterval),
	}
}

// wake makes the session look at its nodes again. It does not block.
func (s *session) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		n.stop()
	}
}

func (s *session) subscription(typeURL string) *subscription {
	for _, sub := range s.subs {
		if sub.typeURL == typeURL {
			return sub
		}
	}
	return nil
}

func (s *session) byRank(rank int) *subscription {
	for _, sub := range s.subs {
		if sub.traits.rank == rank {
			return sub
		}
	}
	return nil
}

// handle applies a request of the client. The error ends the stream.
func (s *session) handle(ctx context.Context, req *request) error {
	if err := s.setNode(req.node); err != nil {
		return err
	}
	if req.size > maxRequestBytes {
		return s.server.refuse(s, codes.ResourceExhausted, "request size", "the request has %d bytes, more than %d", req.size, maxRequestBytes)
	}
	sub, err := s.subscribe(ctx, req)
	if err != nil {
		return err
	}
	if err := s.checkRequest(sub, req); err != nil {
		return err
	}
	rejected := s.apply(sub, req)
	if rejected != nil {
		s.server.rejected(rejected)
	}
	return s.checkNames()
}

// maxGlobs bounds the globs of a type: each name is compared with all of them. Envoy
// subscribes to one of a type.
const maxGlobs = 100

// checkRequest bounds the work that a request causes before what the client subscribes to
// then is checked.
func (s *session) checkRequest(sub *subscription, req *request) error {
	opt := &s.server.opt
	if n := max(len(req.names), len(req.subscribe), len(req.unsubscribe)); n > opt.MaxNames {
		return s.server.refuse(s, codes.ResourceExhausted, "names", "the request has %d names, more than %d names; see Options.MaxNames", n, opt.MaxNames)
	}
	globs := 0
	if s.delta {
		globs = len(sub.globs)
	}
	for _, names := range [][]string{req.names, req.subscribe} {
		for _, name := range names {
			if _, isGlob := parseGlob(name); !isGlob {
				continue
			}
			if _, known := sub.globs[name]; s.delta && known {
				continue
			}
			globs++
		}
	}
	if globs > maxGlobs {
		return s.server.refuse(s, codes.ResourceExhausted, "globs", "the stream subscribes to more than %d globs of one type", maxGlobs)
	}
	return nil
}

// subscribe returns the subscription that a request is about, and creates it on the first
// request of its type.
func (s *session) subscribe(ctx context.Context, req *request) (*subscription, error) {
	if sub := s.subscription(req.typeURL); sub != nil {
		return sub, nil
	}
	if len(s.subs) >= s.server.opt.MaxTypes {
		return nil, s.server.refuse(s, codes.ResourceExhausted, "types", "the stream requests more than %d types; see Options.MaxTypes", s.server.opt.MaxTypes)
	}
	source, err := s.source(req)
	if err != nil {
		return nil, err
	}
	if !s.server.admits(source, req.typeURL) {
		return nil, s.server.refuse(s, codes.InvalidArgument, "unknown type", "type URL %q is unknown; the server's Options.Types registers types that Envoy does not know", bounded(req.typeURL))
	}
	key := source.Key(s.node)
	if err := source.Prepare(ctx, key, req.typeURL); err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err() // the client has gone
		}
		// Why concerns the server alone, and may name its files.
		if omitted, ok := s.server.unready.Allow(); ok {
			s.server.opt.Logger.Warn("the resources of a node cannot be made ready for a client", "node", bounded(s.nodeID), "type", bounded(req.typeURL), "error", err, "omitted", omitted)
		}
		return nil, s.server.refuse(s, codes.Unavailable, "cache", "the server cannot make the resources of type %s ready; its log says why", bounded(req.typeURL))
	}
	if len(s.subs) == 0 {
		s.server.name(s) // from now on the id stays
	}
	sub := newSubscription(req.typeURL, s.delta)
	if source.Serves(req.typeURL) {
		sub.node = s.watch(source, key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.delta:
		s.begin(sub, req, time.Now())
	case s.service == "" && sub.traits.rank == clusterRank:
		sub.resumed = req.version
	}
	at, _ := slices.BinarySearchFunc(s.subs, sub, func(a, b *subscription) int {
		if a.traits.rank != b.traits.rank {
			return a.traits.rank - b.traits.rank
		}
		if a.typeURL < b.typeURL {
			return -1
		}
		return 1
	})
	s.subs = slices.Insert(s.subs, at, sub)
	return sub, nil
}

// source returns the cache that a request is for.
func (s *session) source(req *request) (feed.Source, error) {
	cache := s.server.cache
	if mux, ok := cache.(*cachev3.MuxCache); ok {
		var key string
		if req.delta {
			key = mux.ClassifyDelta(&discoveryv3.DeltaDiscoveryRequest{Node: s.node, TypeUrl: req.typeURL, ResourceNamesSubscribe: req.subscribe})
		} else {
			key = mux.Classify(&discoveryv3.DiscoveryRequest{Node: s.node, TypeUrl: req.typeURL, ResourceNames: req.names})
		}
		cache = mux.Caches[key]
		if cache == nil {
			return nil, s.server.refuse(s, codes.NotFound, "no cache", "no cache is defined for the key %q of type %s", bounded(key), bounded(req.typeURL))
		}
	}
	c, ok := cache.(feed.Cache)
	if !ok {
		return nil, s.server.refuse(s, codes.Internal, "foreign cache", "the cache of type %s is a %T; xdsserver serves the caches of package xdscache", bounded(req.typeURL), cache)
	}
	return c.Feed(), nil
}

// begin decides whether the versions are trusted that a delta client had when the stream
// began.
func (s *session) begin(sub *subscription, req *request, now time.Time) {
	sub.initial = req.initial
	for name, version := range req.initial {
		sub.initialSize += len(name) + len(version)
	}
	switch sub.traits.rank {
	case endpointRank:
		// A client that asks for endpoints before clusters, or for endpoints alone, may be
		// waiting for them: it keeps its clusters warming until it is sent endpoints that
		// it already has (envoyproxy/envoy#22418).
		s.edsFirst = s.byRank(clusterRank) == nil
		sub.untrusted = s.edsFirst
		for name := range s.assignments {
			sub.distrust(name)
		}
		s.assignments = nil
	case clusterRank:
		sub.untrusted = s.edsFirst
		if s.service == "" && len(req.initial) > 0 {
			s.resumed = now
		}
	}
}

func (s *session) watch(source feed.Source, key string) *watchedNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[source]
	if n == nil {
		n = &watchedNode{source: source, key: key, stop: source.Watch(key, s.wake)}
		s.nodes[source] = n
	}
	return n
}

// setNode records the client's node. Only the first request must have it.
func (s *session) setNode(node *corev3.Node) error {
	if node == nil {
		return nil
	}
	if size := proto.Size(node); size > s.server.opt.MaxNodeBytes {
		return s.server.refuse(s, codes.ResourceExhausted, "node size", "the node message has %d bytes, more than %d; see Options.MaxNodeBytes", size, s.server.opt.MaxNodeBytes)
	}
	if len(s.subs) > 0 && node.GetId() != s.nodeID {
		return s.server.refuse(s, codes.InvalidArgument, "node id", "the node id changed from %q to %q; a stream belongs to one node", bounded(s.nodeID), bounded(node.GetId()))
	}
	if s.server.callbacks == nil {
		// Envoy's list of its extensions is large, and nobody reads it.
		node.Extensions = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.nodeID = node, node.GetId()
	return nil
}

// checkNames bounds what the client subscribes to.
func (s *session) checkNames() error {
	names, onDemand, size := 0, 0, 0
	for _, sub := range s.subs {
		names += max(len(sub.names), len(sub.initial))
		size += sub.namesSize
		if sub.initial != nil {
			size += sub.initialSize
		}
		if sub.wildcard {
			onDemand += len(sub.names)
		}
	}
	switch opt := &s.server.opt; {
	case names > opt.MaxNames:
		return s.server.refuse(s, codes.ResourceExhausted, "names", "the stream subscribes to more than %d names; see Options.MaxNames", opt.MaxNames)
	case size > opt.MaxNamesBytes:
		return s.server.refuse(s, codes.ResourceExhausted, "names size", "the names that the stream subscribes to have more than %d bytes; see Options.MaxNamesBytes", opt.MaxNamesBytes)
	case onDemand > opt.MaxOnDemandNames:
		return s.server.refuse(s, codes.ResourceExhausted, "on-demand names", "the stream subscribes to more than %d names beside wildcards; see Options.MaxOnDemandNames", opt.MaxOnDemandNames)
	}
	return nil
}

// apply records what a request says about answers, and what it subscribes to. It returns
// the rejection if it is one.
func (s *session) apply(sub *subscription, req *request) *Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Once a client has replied, a request without a nonce is no older one: the client has
	// forgotten the type, as gRPC's for Node.js and for Java did, and requests it anew.
	anew := sub.replied && req.nonce == ""
	repeated := anew || (sub.acked && req.nonce == sub.lastNonce && req.err == nil)
	rejection := s.reply(sub, req)
	if s.delta {
		s.applyDelta(sub, req)
	} else if anew || req.nonce == sub.lastNonce || sub.lastNonce == "" {
		s.applySotW(sub, req, repeated)
	} else {
		// The client has sent it before it has seen the last answer, to which it will reply
		// with all names.
		sub.noteDropped(req.names)
	}
	return rejection
}

func (s *session) applySotW(sub *subscription, req *request, repeated bool) {
	before := len(sub.names)
	added := sub.replaceNames(req.names)
	switch {
	case !sub.answered: // everything is due
	case len(added) > 0 && sub.isFull():
		sub.all = true
	case len(added) > 0:
		for _, name := range added {
			if name == "*" {
				sub.all = true
				continue
			}
			sub.due[name] = struct{}{}
		}
	case repeated && len(sub.names) == before:
		sub.all = true
		clear(sub.told)
	}
}

func (s *session) applyDelta(sub *subscription, req *request) {
	if len(req.subscribe) > 0 {
		sub.legacyWildcard = false
	}
	if sub.legacyWildcard {
		sub.wildcard = true
	}
	for _, name := range req.subscribe {
		added := sub.add(name)
		switch {
		case !sub.answered: // everything is due
		case name == "*":
			if added {
				sub.all = true
				sub.fresh[name] = struct{}{}
			}
		default:
			// Also a name that it subscribes to already: it has dropped the resource.
			sub.due[name] = struct{}{}
			sub.fresh[name] = struct{}{}
		}
	}
	for _, name := range req.unsubscribe {
		sub.remove(name)
	}
}

// reply records the client's reply to an answer.
func (s *session) reply(sub *subscription, req *request) *Rejection {
	if req.nonce == "" {
		return nil
	}
	a, ok := sub.acknowledge(req.nonce)
	if !ok {
		return nil
	}
	defer s.server.replies.Wake(s.nodeID)
	sub.acked, sub.replied = len(sub.outstanding) == 0, true
	reply := AnswerStatus{Sequence: a.sequence, Version: a.version}
	if req.err == nil {
		sub.status.Acked = reply
		if a.complete {
			sub.complete = max(sub.complete, a.sequence)
		}
		if sub.traits.namesRoutes && a.adds {
			s.listened = time.Now()
		}
		return nil
	}
	sub.status.Rejected, sub.status.RejectedError = reply, rejectedText(sub.typeURL, req.err.GetMessage())
	sub.rejectedLast = sub.acked
	return &Rejection{
		Node: s.nodeID, Peer: s.peer, TypeURL: sub.typeURL,
		Version: a.version, Sequence: a.sequence, Error: sub.status.RejectedError,
	}
}

// outgoing is an answer that is recorded as sent, and has to be sent.
type outgoing struct {
	*answer
	sub   *subscription
	nonce string
}

// next returns the next answer that the client is owed, made from the newest state, or
// nil and the time at which there may be one without a change.
func (s *session) next(now time.Time) (*outgoing, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		n.node, n.sequence = n.source.Node(n.key)
	}
	s.expire(now)
	progress := false
	for _, sub := range s.subs {
		if sub.node == nil {
			continue
		}
		if sub.node.node == nil {
			// The client keeps what it has until its node is set again, and nothing waits.
			sub.blocked = false
			progress = sub.concluded(sub.node.sequence) || progress
			continue
		}
		a := s.answer(sub, now)
		if a != nil {
			return s.record(sub, a), time.Time{}
		}
		if !sub.blocked && len(sub.held) == 0 && len(sub.missing) == 0 {
			progress = sub.concluded(sub.node.sequence) || progress
		}
	}
	if progress {
		s.server.replies.Wake(s.nodeID)
	}
	if !slices.ContainsFunc(s.subs, func(sub *subscription) bool { return sub.blocked }) {
		s.blockedSince = time.Time{}
	}
	return nil, s.deadline(now)
}

// concluded records that the client is owed nothing at a sequence, and reports whether it
// was not known.
func (s *subscription) concluded(seq journal.Sequence) bool {
	if s.complete >= seq {
		return false
	}
	if len(s.outstanding) > 0 || s.rejectedLast {
		return false
	}
	s.complete = seq
	return true
}

// answer returns the answer of one type that may be sent now, or nil.
func (s *session) answer(sub *subscription, now time.Time) *answer {
	if sub.resumed != "" {
		sub.former, sub.from = formerClusters(sub.node.node, sub.typeURL, sub.resumed)
		sub.resumed, s.resumed = "", now
	}
	p := sub.plan(state.TypeOf(sub.node.node, sub.typeURL))
	if sub.blocked = s.isBlocked(sub, p, now); sub.blocked {
		return nil
	}
	until := now // removes everything that is gone
	if sub.traits.removedLast && (len(p.gone) > 0 || len(sub.held) > 0) && s.routesPending(sub, p, now) {
		until = now.Add(-s.holdTime())
	}
	if clusters := s.byRank(clusterRank); sub.traits.rank == endpointRank && clusters != nil && len(clusters.held) > 0 {
		// The client may use the endpoints of a held cluster, which the node no longer has.
		sub.postponeMissing(now.Add(s.server.opt.missingGrace))
	}
	a := sub.commit(p, until, now, s.server.opt.missingGrace)
	sub.from, sub.former = sub.node.node.Sequence(), nil
	if a == nil {
		a = sub.heartbeatAnswer()
	}
	sub.heartbeat = false
	if a == nil {
		return nil
	}
	a.version = sub.node.source.Version(sub.node.node, sub.typeURL)
	if !s.delta && s.service == "" && sub.traits.rank == clusterRank {
		a.version = heldVersion(a.version, sub.held)
	}
	return a
}

// isBlocked reports whether a change has to wait for the client to acknowledge the
// clusters that were sent: it may refer to them.
func (s *session) isBlocked(sub *subscription, p *plan, now time.Time) bool {
	if !sub.traits.refersToClusters || (!s.clustersPending() && !s.clustersUnasked(sub)) {
		return false
	}
	if len(p.upserts) == 0 && (len(p.gone) == 0 || sub.traits.removedLast) {
		return false
	}
	if s.blockedSince.IsZero() {
		s.blockedSince = now
	}
	return now.Before(s.blockedSince.Add(s.server.opt.AckTimeout))
}

// clustersPending reports whether the client has not replied to clusters that it was sent.
func (s *session) clustersPending() bool {
	sub := s.byRank(clusterRank)
	return sub != nil && slices.ContainsFunc(sub.outstanding, func(a sentAnswer) bool { return a.adds })
}

// clustersUnasked reports whether a client that has configuration of the subscription has
// asked for endpoints and not yet for clusters. It does so once it has the endpoints.
func (s *session) clustersUnasked(sub *subscription) bool {
	if !s.edsFirst || s.byRank(clusterRank) != nil {
		return false
	}
	// Routes stay behind listeners that wait.
	return len(sub.initial) > 0 || slices.ContainsFunc(s.subs, func(o *subscription) bool {
		return o.blocked && o.traits.rank < sub.traits.rank
	})
}

// routesAskedBy returns until when a removal waits for the client to ask for what leads to
// its clusters: for listeners after it has asked for clusters again, and for the routes that
// listeners name after it has acknowledged those.
func (s *session) routesAskedBy() time.Time {
	since := s.listened
	if s.resumed.After(since) && s.subscription(resourcev3.ListenerType) == nil {
		since = s.resumed
	}
	return since.Add(askGrace)
}

// askGrace is how long a client has to ask for the next type. An Envoy that reconnects asks
// for all types at once, and for the routes of a listener when it has accepted the listener.
const askGrace = 500 * time.Millisecond

// routesPending reports whether the client has not yet acknowledged everything that may
// have referred to what is to be removed. p is the plan of sub, which is not repeated.
func (s *session) routesPending(sub *subscription, p *plan, now time.Time) bool {
	if now.Before(s.routesAskedBy()) {
		return true
	}
	for _, other := range s.subs {
		if !other.traits.refersToClusters || other.node == nil || other.node.node == nil {
			continue
		}
		if !other.answered || len(other.outstanding) > 0 || other.blocked {
			return true
		}
		op := p
		if other != sub {
			op = other.plan(state.TypeOf(other.node.node, other.typeURL))
		}
		if len(op.upserts) > 0 || (len(op.gone) > 0 && !other.traits.removedLast) {
			return true
		}
	}
	return false
}

// holdTime bounds the wait before a removal: what refers to the resource may be sent as
// late as AckTimeout, and may be acknowledged AckTimeout later.
func (s *session) holdTime() time.Duration { return 2 * s.server.opt.AckTimeout }

// record numbers an answer and records it as sent.
func (s *session) record(sub *subscription, a *answer) *outgoing {
	s.nonce++
	nonce := strconv.FormatUint(s.nonce, 10)
	if sub.traits.rank == clusterRank {
		s.followClusters(a)
	}
	complete := len(sub.held) == 0 && len(sub.missing) == 0
	sub.outstanding = append(sub.outstanding, sentAnswer{nonce, sub.node.sequence, a.version, len(a.resources) > 0, complete})
	if len(sub.outstanding) > maxOutstanding {
		sub.outstanding = slices.Delete(sub.outstanding, 0, 1)
	}
	sub.lastNonce, sub.acked, sub.rejectedLast = nonce, false, false
	sub.status.Sent = AnswerStatus{Sequence: sub.node.sequence, Version: a.version}
	return &outgoing{a, sub, nonce}
}

// maxOutstanding bounds the answers that a client never replies to, of one type.
const maxOutstanding = 1000

// followClusters makes the assignments of clusters that are sent be sent too, whether they
// have changed or not: Envoy warms such a cluster and waits for them (R1).
func (s *session) followClusters(a *answer) {
	eds := s.byRank(endpointRank)
	for _, r := range a.changed {
		name := assignmentName(r.Value)
		switch {
		case name == "":
		case eds == nil && s.delta && s.service == "":
			if s.assignments == nil {
				s.assignments = map[string]struct{}{}
			}
			s.assignments[name] = struct{}{}
		case eds == nil:
		case !eds.answered:
			eds.distrust(name)
		case eds.wants(name):
			eds.due[name] = struct{}{}
			delete(eds.told, name)
		}
	}
}

// expire makes due what has been waiting long enough.
func (s *session) expire(now time.Time) {
	beat := s.server.opt.HeartbeatInterval > 0 && !now.Before(s.nextHeartbeat)
	if beat {
		s.nextHeartbeat = now.Add(s.server.opt.HeartbeatInterval)
	}
	for _, sub := range s.subs {
		for name, at := range sub.refresh {
			if !now.Before(at) {
				sub.due[name] = struct{}{}
				delete(sub.refresh, name)
			}
		}
		if beat && sub.hasTTL && sub.answered {
			sub.beat()
		}
	}
}

// beat makes the client renew the TTLs of its resources.
func (s *subscription) beat() {
	switch {
	case s.delta:
		s.heartbeat = true
	case s.isFull():
		// A heartbeat without bodies would be taken for the complete state: Envoy deletes
		// what is missing.
		s.resend = true
	default:
		for _, r := range s.subscribed(s.base) {
			if r.TTL != nil {
				s.due[r.Name] = struct{}{}
			}
		}
	}
}

// heartbeatAnswer returns the answer that renews the TTLs of a delta client, if it is due.
func (s *subscription) heartbeatAnswer() *answer {
	if !s.heartbeat {
		return nil
	}
	a := &answer{typeURL: s.typeURL, delta: true, heartbeat: true}
	for _, r := range s.subscribed(s.base) {
		if r.TTL != nil {
			a.resources = append(a.resources, r)
		}
	}
	if len(a.resources) == 0 {
		s.hasTTL = false
		return nil
	}
	return a
}

// deadline returns the time at which an answer may become due without a change, or zero.
func (s *session) deadline(now time.Time) time.Time {
	var first time.Time
	at := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	for _, sub := range s.subs {
		if sub.node == nil || sub.node.node == nil {
			continue // nothing is due before the node is set, which wakes the session
		}
		if sub.blocked {
			// Removals of the type wait too.
			at(s.blockedSince.Add(s.server.opt.AckTimeout))
		} else {
			for _, h := range sub.held {
				at(h.since.Add(s.holdTime()))
				if asked := s.routesAskedBy(); now.Before(asked) {
					at(asked)
				}
			}
		}
		for _, t := range sub.missing {
			at(t)
		}
		for _, t := range sub.refresh {
			at(t)
		}
		if sub.hasTTL && s.server.opt.HeartbeatInterval > 0 {
			at(s.nextHeartbeat)
		}
	}
	return first
}
