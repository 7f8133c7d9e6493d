package xdsserver_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// modelSub is a subscription since the request of that number.
type modelSub struct {
	request  int
	wildcard bool
	names    map[string]bool
}

func (s modelSub) matches(name string) bool {
	if s.wildcard || s.names[name] {
		return true
	}
	dir := name[:strings.LastIndex(name, "/")+1]
	return strings.HasPrefix(name, "xdstp://") && s.names[dir+"*"]
}

func (s modelSub) String() string {
	names := slices.Sorted(maps.Keys(s.names))
	if s.wildcard {
		names = slices.Insert(names, 0, "*")
	}
	return shortName(strings.Join(names, " "))
}

func (s modelSub) clone() modelSub {
	s.names = maps.Clone(s.names)
	return s
}

// modelTold is what a session has last told about a name.
type modelTold struct {
	content string
	version string
	gone    bool // it does not exist
	resp    *modelResponse
	// initial is set if the client named the version in its first request.
	initial bool
}

func (t *modelTold) rejected() bool { return t.resp != nil && t.resp.rejected }

// low is the number of requests that the server knew at least.
func (t *modelTold) low() int {
	if t.resp == nil {
		return 0
	}
	return t.resp.low
}

// modelResource is a resource of a response.
type modelResource struct{ name, content, version string }

// modelResponse is a response as the client received it.
type modelResponse struct {
	modelFrame
	typeURL, nonce, version string
	resources               []modelResource
	removed                 []string
	index                   int // among the responses of its type
	answered                int // the number of the request that is its ACK or NACK, or 0
	rejected                bool
}

func (r *modelResponse) String() string {
	var parts []string
	for _, res := range r.resources {
		parts = append(parts, shortName(res.name)+"="+contentName(r.typeURL, res))
	}
	for _, name := range r.removed {
		parts = append(parts, "-"+shortName(name))
	}
	return fmt.Sprintf("%s #%s {%s}", modelShort[r.typeURL], r.nonce, strings.Join(parts, " "))
}

// contentName returns the variant of a content.
func contentName(typeURL string, r modelResource) string {
	for variant := range modelVariants {
		if newModelItem(typeURL, r.name, variant).bytes == r.content {
			return fmt.Sprint(variant)
		}
	}
	return "empty"
}

// modelRequest is a request, with the subscription that it leaves.
type modelRequest struct {
	number    int
	sub       modelSub
	withNonce int // the number of responses before it
}

// modelWatch is the client's side of one type of one session.
type modelWatch struct {
	typeURL    string
	delta      bool
	sent       []modelRequest
	sub        modelSub
	subs       []modelSub
	subscribed map[string][]int // the requests that subscribed to a name
	told       map[string]*modelTold
	responses  []*modelResponse
	pending    []*modelResponse // not answered yet
	version    string           // SotW: the last one that was accepted
	resumes    bool             // SotW: the first request has a version
	requested  int              // the last request
	asked      []int            // the requests that were not only an ACK or a NACK
	repeated   int              // the last SotW request that must be answered (R3)
}

// matchesThroughout reports whether all subscriptions that the server can have known
// match a name.
func (w *modelWatch) matchesThroughout(name string, f modelFrame) bool {
	for _, sub := range w.known(f) {
		if !sub.matches(name) {
			return false
		}
	}
	return len(w.known(f)) > 0 && w.subscribedAt(name) <= f.low
}

// subscribedAt returns the last request that subscribed to a name, or 0.
func (w *modelWatch) subscribedAt(name string) int {
	at := w.subscribed[name]
	if len(at) == 0 {
		return 0
	}
	return at[len(at)-1]
}

func (w *modelWatch) matchesEver(name string, f modelFrame) bool {
	return slices.ContainsFunc(w.known(f), func(s modelSub) bool { return s.matches(name) })
}

// known are the subscriptions that the server can have known. It ignores a SotW request
// with the nonce of a response that is not the last one.
func (w *modelWatch) known(f modelFrame) []modelSub {
	first := 0
	for i, req := range w.sent {
		if req.number <= f.low && !w.maybeStale(req) {
			first = i
		}
	}
	var subs []modelSub
	for i, req := range w.sent[first:] {
		if i == 0 || req.number <= f.high {
			subs = append(subs, req.sub)
		}
	}
	return subs
}

// maybeStale reports whether the server may have sent a newer response than the one with
// the nonce of a SotW request when it received the request.
func (w *modelWatch) maybeStale(req modelRequest) bool {
	return !w.delta && slices.ContainsFunc(w.responses[req.withNonce:], func(r *modelResponse) bool { return r.low < req.number })
}

// established reports whether a change of the named resource is news for the client, and
// not the answer to a request that the server may not have seen before.
func (w *modelWatch) established(name string, f modelFrame) bool {
	return w.subs[0].request <= f.low && w.subscribedAt("*") <= f.low && w.matchesThroughout(name, f)
}

// content returns what the client was told of a name, or an empty string.
func (w *modelWatch) content(name string) string {
	if t := w.told[name]; t != nil && !t.gone {
		return t.content
	}
	return ""
}

// subscribedSince reports whether a request that the response answers, and that the one
// before did not know, subscribed to a name.
func (w *modelWatch) subscribedSince(name string, t *modelTold, f modelFrame) bool {
	for _, key := range []string{name, "*", modelPool + "*"} {
		if slices.ContainsFunc(w.subscribed[key], func(at int) bool { return at > t.low() && at <= f.high }) {
			return true
		}
	}
	return false
}

func (w *modelWatch) last() *modelResponse {
	if len(w.responses) == 0 {
		return nil
	}
	return w.responses[len(w.responses)-1]
}

// stale reports whether the server may have ignored the last request (SotW).
func (w *modelWatch) stale() bool { return w.maybeStale(w.sent[len(w.sent)-1]) }

// modelClient is a client with one stream for all types, or one for each.
type modelClient struct {
	m      *model
	name   string
	node   *modelNode
	delta  bool
	ads    bool
	window int
	auto   bool // it subscribes to the assignments of its clusters, as Envoy does
	nack   int  // percentage of responses that it rejects
	delay  bool // it answers later
	paused bool // it does not read

	held     map[string]map[string]modelResource
	sessions []*modelSession
}

// modelSession is one stream.
type modelSession struct {
	c        *modelClient
	number   int
	only     string // the stream's type, or empty
	wire     *modelWire
	done     chan error
	requests int
	watches  map[string]*modelWatch
	nonces   map[string]bool
	// owed are the assignments that must follow a cluster (R1).
	owed map[string]*modelResponse
	// may are the assignments that may follow a cluster: also those of clusters that were
	// sent again, because the client asked for it, or that are gone meanwhile.
	may map[string]bool
	// edsFirst are the assignments that the client named before it asked for clusters (R2).
	edsFirst map[string]bool
	// freeAt is the last time at which no listener and no route waited.
	freeAt time.Time
}

func (c *modelClient) session(typeURL string) *modelSession {
	for _, s := range c.sessions {
		if s.only == "" || s.only == typeURL {
			return s
		}
	}
	return nil
}

func (c *modelClient) watch(typeURL string) *modelWatch {
	if s := c.session(typeURL); s != nil {
		return s.watches[typeURL]
	}
	return nil
}

func (s *modelSession) logf(format string, args ...any) {
	s.c.m.logf("%s.%d: %s", s.c.name, s.number, fmt.Sprintf(format, args...))
}

func (s *modelSession) failf(format string, args ...any) {
	s.c.m.failf("%s.%d: %s", s.c.name, s.number, fmt.Sprintf(format, args...))
}

// send sends a request and returns its number.
func (s *modelSession) send(m any) int {
	s.requests++
	s.wire.toServer <- modelMarshal(m)
	return s.requests
}

// request sends a request of a type. All fields that depend on the protocol are in one
// of the two arguments.
func (s *modelSession) request(w *modelWatch, names []string, d *discoveryv3.DeltaDiscoveryRequest, nonce string, detail *rpcstatus.Status) int {
	var node *corev3.Node
	if s.requests == 0 || s.c.m.rng.IntN(4) == 0 {
		node = &corev3.Node{Id: s.c.node.id}
	}
	if s.c.delta {
		d.Node, d.TypeUrl, d.ResponseNonce, d.ErrorDetail = node, w.typeURL, nonce, detail
		w.requested = s.send(d)
	} else {
		w.requested = s.send(&discoveryv3.DiscoveryRequest{
			Node: node, TypeUrl: w.typeURL, ResourceNames: names, VersionInfo: w.version, ResponseNonce: nonce, ErrorDetail: detail,
		})
	}
	w.sent = append(w.sent, modelRequest{w.requested, w.sub.clone(), len(w.responses)})
	return w.requested
}

// sotwNames are the names of a SotW request: a client without a name is wildcard as long
// as it has never named one.
func (w *modelWatch) sotwNames() []string {
	names := slices.Sorted(maps.Keys(w.sub.names))
	if w.sub.wildcard && !w.legacy() {
		names = append(names, "*")
	}
	return names
}

// legacy reports whether the client has never named a resource.
func (w *modelWatch) legacy() bool {
	for _, sub := range w.subs {
		if len(sub.names) > 0 || !sub.wildcard {
			return false
		}
	}
	return len(w.subscribed["*"]) == 0
}

// open sends the first request of a type.
func (s *modelSession) open(typeURL string, sub modelSub, explicit bool, versions map[string]string) {
	w := &modelWatch{typeURL: typeURL, delta: s.c.delta, sub: sub, subscribed: map[string][]int{}, told: map[string]*modelTold{}}
	next := s.requests + 1
	w.sub.request = next
	w.subs = append(w.subs, w.sub.clone())
	for name := range sub.names {
		w.subscribed[name] = []int{next}
	}
	if explicit && sub.wildcard {
		w.subscribed["*"] = []int{next}
	}
	for name, version := range versions {
		w.told[name] = &modelTold{version: version, initial: true}
		if r, ok := s.c.held[typeURL][name]; ok && r.version == version {
			w.told[name].content = r.content
		}
	}
	if !s.c.delta {
		w.version = "" // as after a restart of the client; Envoy sends the last one
		if last := s.c.m.lastVersion[s.c.name+typeURL]; s.c.m.rng.IntN(2) == 0 {
			w.version, w.resumes = last, last != ""
		}
	}
	if s.c.delta && typeURL == resourcev3.EndpointType && s.watches[resourcev3.ClusterType] == nil {
		s.edsFirst = maps.Clone(sub.names)
	}
	s.watches[typeURL] = w
	s.c.forget(w)
	subscribe := slices.Sorted(maps.Keys(sub.names))
	if explicit && sub.wildcard {
		subscribe = append(subscribe, "*")
	}
	s.logf("opens %s for %q with versions %q", modelShort[typeURL], subscribe, versions)
	w.asked = append(w.asked, s.request(w, subscribe, &discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: subscribe, InitialResourceVersions: versions,
	}, "", nil))
}

// change changes a subscription.
func (s *modelSession) change(w *modelWatch, subscribe, unsubscribe []string) {
	if !s.c.delta {
		s.answer(w)
	}
	wasLegacy := w.legacy()
	next := s.requests + 1
	w.sub = w.sub.clone()
	w.sub.request = next
	for _, name := range subscribe {
		if name == "*" {
			w.sub.wildcard = true
		} else {
			w.sub.names[name] = true
			// SotW: without the explicit "*", a name ends the wildcard.
			if !s.c.delta && wasLegacy && !slices.Contains(subscribe, "*") {
				w.sub.wildcard = false
			}
		}
		if s.c.delta || !w.subs[len(w.subs)-1].names[name] {
			w.subscribed[name] = append(w.subscribed[name], next)
		}
	}
	for _, name := range unsubscribe {
		if name == "*" {
			w.sub.wildcard = false
			continue
		}
		delete(w.sub.names, name)
		if s.c.delta && w.sub.matches(name) {
			w.subscribed[name] = append(w.subscribed[name], next) // it must be sent again, or be reported as removed
		}
	}
	w.subs = append(w.subs, w.sub.clone())
	s.c.forget(w)
	s.logf("%s subscribes to %q, unsubscribes from %q: now %s", modelShort[w.typeURL], subscribe, unsubscribe, w.sub)
	nonce := ""
	if !s.c.delta && w.last() != nil {
		nonce = w.last().nonce
	}
	w.asked = append(w.asked, s.request(w, w.sotwNames(), &discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe,
	}, nonce, nil))
}

// forget drops what the client no longer subscribes to.
func (c *modelClient) forget(w *modelWatch) {
	maps.DeleteFunc(c.held[w.typeURL], func(name string, _ modelResource) bool { return !w.sub.matches(name) })
}

// repeat sends a SotW request again, with a nonce that has been acknowledged (R3).
func (s *modelSession) repeat(w *modelWatch) {
	s.logf("%s repeats its request with nonce %s", modelShort[w.typeURL], w.last().nonce)
	w.repeated = s.request(w, w.sotwNames(), nil, w.last().nonce, nil)
	w.asked = append(w.asked, w.repeated)
}

// answer sends all ACKs and NACKs that are pending.
func (s *modelSession) answer(w *modelWatch) {
	for _, r := range w.pending {
		var detail *rpcstatus.Status
		word := "ACK"
		if r.rejected {
			word, detail = "NACK", &rpcstatus.Status{Code: 3, Message: "rejected by the model"}
		} else if r.version != "" {
			w.version = r.version
			s.c.m.lastVersion[s.c.name+w.typeURL] = r.version
		}
		s.logf("%s %s #%s", word, modelShort[w.typeURL], r.nonce)
		r.answered = s.request(w, w.sotwNames(), &discoveryv3.DeltaDiscoveryRequest{}, r.nonce, detail)
	}
	w.pending = nil
}

// parse decodes a response.
func (s *modelSession) parse(f modelFrame) *modelResponse {
	r := &modelResponse{modelFrame: f}
	if s.c.delta {
		var m discoveryv3.DeltaDiscoveryResponse
		if err := modelUnmarshal(f.data, &m); err != nil {
			s.failf("decode a response: %v", err)
		}
		r.typeURL, r.nonce, r.version, r.removed = m.GetTypeUrl(), m.GetNonce(), m.GetSystemVersionInfo(), m.GetRemovedResources()
		for _, res := range m.GetResources() {
			if got := nameOf(s, res.GetResource()); got != res.GetName() {
				s.failf("a resource has the name %q, and its message %q", res.GetName(), got)
			}
			r.resources = append(r.resources, modelResource{res.GetName(), string(res.GetResource().GetValue()), res.GetVersion()})
			if res.GetResource().GetTypeUrl() != r.typeURL {
				s.failf("a resource has the type %q in a response of the type %q", res.GetResource().GetTypeUrl(), r.typeURL)
			}
		}
	} else {
		var m discoveryv3.DiscoveryResponse
		if err := modelUnmarshal(f.data, &m); err != nil {
			s.failf("decode a response: %v", err)
		}
		r.typeURL, r.nonce, r.version = m.GetTypeUrl(), m.GetNonce(), m.GetVersionInfo()
		for _, res := range m.GetResources() {
			r.resources = append(r.resources, modelResource{nameOf(s, res), string(res.GetValue()), ""})
			if res.GetTypeUrl() != r.typeURL {
				s.failf("a resource has the type %q in a response of the type %q", res.GetTypeUrl(), r.typeURL)
			}
		}
		if r.version == "" {
			s.failf("%s has no version", r)
		}
	}
	return r
}

func nameOf(s *modelSession, a *anypb.Any) string {
	m, err := a.UnmarshalNew()
	if err != nil {
		s.failf("decode a resource: %v", err)
	}
	return cachev3.GetResourceName(m)
}

// receive checks a response, and accepts or rejects it.
func (s *modelSession) receive(f modelFrame) {
	r := s.parse(f)
	s.logf("receives %s", r)
	w := s.watches[r.typeURL]
	if w == nil {
		s.failf("%s: the type was not requested", r)
	}
	if r.nonce == "" || s.nonces[r.nonce] {
		s.failf("%s: the nonce is empty or has been used", r)
	}
	s.nonces[r.nonce] = true
	seen := map[string]bool{}
	for _, res := range r.resources {
		if seen[res.name] {
			s.failf("%s: %q is there twice", r, res.name)
		}
		seen[res.name] = true
	}
	for _, name := range r.removed {
		if seen[name] {
			s.failf("%s: %q is there twice", r, name)
		}
		seen[name] = true
	}
	s.checkContents(w, r)
	s.checkReasons(w, r)
	s.checkOrder(w, r)
	s.checkMakeBeforeBreak(w, r)
	r.index = len(w.responses)
	w.responses = append(w.responses, r)
	s.remember(w, r)
	r.rejected = s.c.m.rng.IntN(100) < s.c.nack && !s.c.m.resting
	w.pending = append(w.pending, r)
	if r.rejected {
		s.logf("rejects #%s", r.nonce)
		for svc, by := range s.owed {
			if by == r {
				delete(s.owed, svc)
			}
		}
	} else {
		s.apply(w, r)
	}
	if !s.c.delay {
		s.answer(w)
	}
}

// checkContents checks that a response contains resources that the client asked for, as
// the node has or had them when the response was made.
func (s *modelSession) checkContents(w *modelWatch, r *modelResponse) {
	node := s.c.node
	for _, res := range r.resources {
		if !w.matchesEver(res.name, r.modelFrame) && (r.typeURL != resourcev3.EndpointType || !s.may[res.name]) {
			s.failf("%s: %q was not asked for", r, res.name)
		}
		if it := node.find(r.typeURL, res.name, res.content, r.from, r.until); it != nil {
			if s.c.delta {
				if err := s.c.m.versions.learn(res.content, res.version); err != nil {
					s.failf("%s: %q: %v", r, res.name, err)
				}
			}
			continue
		}
		if !s.c.delta && r.typeURL == resourcev3.EndpointType && res.content == emptyAssignment(res.name) && node.lacks(r.typeURL, res.name, r.from, r.until) {
			continue
		}
		// Make before break: a SotW response contains what is removed later, also of what
		// the client has according to the version in its first request.
		if !s.c.delta && isFull(r.typeURL) && node.lacks(r.typeURL, res.name, r.from, r.until) &&
			node.find(r.typeURL, res.name, res.content, 0, r.until) != nil && (w.told[res.name] != nil && !w.told[res.name].gone || w.told[res.name] == nil && w.resumes && r.typeURL == resourcev3.ClusterType) {
			continue
		}
		s.failf("%s: %q has a content that the node did not have from state %d through %d", r, res.name, r.from, r.until)
	}
	for _, name := range r.removed {
		if !node.lacks(r.typeURL, name, r.from, r.until) {
			s.failf("%s: %q is removed, but it exists from state %d through %d", r, name, r.from, r.until)
		}
		if t := w.told[name]; !w.matchesEver(name, r.modelFrame) && (t == nil || t.gone) {
			s.failf("%s: %q is removed, but was not asked for", r, name)
		}
	}
}

// reason returns why a resource can be sent, or an empty string.
func (s *modelSession) reason(w *modelWatch, r *modelResponse, res modelResource) string {
	t := w.told[res.name]
	switch {
	case t == nil:
		return "new"
	case t.gone && res.content != t.content:
		return "exists again"
	case t.initial && t.version != res.version, !t.initial && t.content != res.content:
		return "changed"
	case w.subscribedSince(res.name, t, r.modelFrame):
		return "subscribed"
	case w.typeURL == resourcev3.EndpointType && s.may[res.name]:
		return "its cluster changed (R1)"
	case t.initial && s.edsFirst != nil && (w.typeURL == resourcev3.EndpointType || w.typeURL == resourcev3.ClusterType):
		return "assignments first (R2)"
	case t.initial && len(w.responses) > 0 && s.changedSince(w, res.name, &modelTold{resp: w.responses[0]}, r):
		return "removed, which may have to wait, and exists again"
	case t.rejected() && s.changedSince(w, res.name, t, r):
		return "changed and changed back"
	case !s.c.delta && t.gone && !t.initial && w.askedSince(t.resp, r):
		return "missing, and asked for again"
	case !s.c.delta && !isFull(w.typeURL) && s.changedSince(w, res.name, t, r):
		return "removed, which SotW does not say, and exists again"
	}
	return ""
}

func (s *modelSession) changedSince(w *modelWatch, name string, t *modelTold, r *modelResponse) bool {
	it := s.c.node.history[r.until].get(w.typeURL, name)
	return it != nil && it.since > t.resp.from
}

// serviceOf returns the name of a cluster's assignment.
func (s *modelSession) serviceOf(res modelResource, r *modelResponse) string {
	if it := s.c.node.find(resourcev3.ClusterType, res.name, res.content, 0, r.until); it != nil {
		return it.service
	}
	return ""
}

// checkReasons checks that a response tells the client something new (R7), or is what
// R1, R2 or R3 ask for.
func (s *modelSession) checkReasons(w *modelWatch, r *modelResponse) {
	last := w.last()
	requested := last == nil || w.askedSince(last, r)
	if s.c.delta {
		for _, res := range r.resources {
			if s.reason(w, r, res) == "" {
				rule := ""
				if w.told[res.name].rejected() {
					rule = ", and was rejected (R7)"
				}
				s.failf("%s: %q has been sent already%s", r, res.name, rule)
			}
		}
		for _, name := range r.removed {
			switch t := w.told[name]; {
			case t == nil && (w.named(name, r.modelFrame) || w.typeURL == resourcev3.EndpointType && s.may[name]):
			case t == nil:
				s.failf("%s: %q is removed, but the client was never told of it", r, name)
			case t.gone && !w.subscribedSince(name, t, r.modelFrame) && (w.typeURL != resourcev3.EndpointType || !s.may[name]):
				s.failf("%s: %q has been removed already", r, name)
			}
		}
		if len(r.resources)+len(r.removed) == 0 && !requested {
			s.failf("%s: the response is empty", r)
		}
		return
	}
	if requested {
		return
	}
	if isFull(w.typeURL) {
		for name, t := range w.told {
			if !t.gone && !slices.ContainsFunc(r.resources, func(res modelResource) bool { return res.name == name }) {
				return // a removal
			}
		}
	}
	for _, res := range r.resources {
		if s.reason(w, r, res) != "" {
			return
		}
	}
	if last.rejected {
		s.failf("%s: it has been sent already, and was rejected (R7)", r)
	}
	s.failf("%s: it has been sent already", r)
}

// named reports whether the client subscribed to the name itself.
func (w *modelWatch) named(name string, f modelFrame) bool {
	return slices.ContainsFunc(w.known(f), func(s modelSub) bool { return s.names[name] }) || len(w.subscribed[name]) > 0
}

// askedSince reports whether the client asked for something that the last response did
// not know of. A SotW server knows a subscription from a later ACK if it ignored the
// request that changed it.
func (w *modelWatch) askedSince(last, r *modelResponse) bool {
	if slices.ContainsFunc(w.asked, func(at int) bool { return at > last.low && at <= r.high }) {
		return true
	}
	for _, before := range w.known(last.modelFrame) {
		for _, now := range w.known(r.modelFrame) {
			if before.String() != now.String() {
				return true
			}
		}
	}
	return false
}

// checkOrder checks that what one change made is sent in the order of the types (R4).
func (s *modelSession) checkOrder(w *modelWatch, r *modelResponse) {
	rank := slices.Index(modelTypes, r.typeURL)
	for _, it := range s.news(w, r) {
		for _, before := range modelTypes[:rank] {
			bw := s.watches[before]
			// A secret waits neither for listeners nor for routes, which may wait for the
			// clusters' ACK: a cluster may need the secret to warm.
			if bw == nil || (r.typeURL == resourcev3.SecretType && before != resourcev3.ClusterType && before != resourcev3.EndpointType) {
				continue
			}
			for _, j := range s.c.node.pinned(before, it.since, r.until) {
				if bw.established(j.name, r.modelFrame) && bw.content(j.name) != j.bytes {
					s.failf("%s: %q came with state %d, whose %s %q has not been sent (R4)", r, it.name, it.since, modelShort[before], j.name)
				}
			}
		}
	}
}

// news are the items of a response that changed under an established subscription.
func (s *modelSession) news(w *modelWatch, r *modelResponse) []*modelItem {
	if len(w.responses) == 0 {
		return nil // nothing can break before the first response
	}
	var out []*modelItem
	for _, res := range r.resources {
		it := s.c.node.find(r.typeURL, res.name, res.content, r.from, r.until)
		if it != nil && w.established(res.name, r.modelFrame) && w.content(res.name) != res.content {
			out = append(out, it)
		}
	}
	return out
}

// answeredBefore reports whether the server can have had the ACK or NACK of a response,
// or of a later one of its type, when it made another.
func (w *modelWatch) answeredBefore(told *modelResponse, f modelFrame) bool {
	for _, r := range w.responses[told.index:] {
		if r.answered > 0 && r.answered <= f.high {
			return true
		}
	}
	return false
}

// noteWaiting records whether listeners or routes wait.
func (s *modelSession) noteWaiting() {
	for _, typeURL := range []string{resourcev3.ListenerType, resourcev3.RouteType} {
		if w := s.watches[typeURL]; w != nil {
			if last := w.last(); last == nil || w.asked[len(w.asked)-1] > last.high {
				return // what the client asked for may wait
			}
			for name, it := range s.c.node.state()[typeURL] {
				if !w.sub.matches(name) {
					continue
				}
				// What was removed and exists again with the content of before waits too.
				if t := w.told[name]; !w.isTold(s, it) || (t.resp != nil && it.since > t.resp.from) {
					return
				}
			}
			for name, t := range w.told {
				if !t.gone && s.c.node.state().get(typeURL, name) == nil {
					return // a removal may wait
				}
			}
		}
	}
	s.freeAt = time.Now()
}

// checkMakeBeforeBreak checks R6.
func (s *modelSession) checkMakeBeforeBreak(w *modelWatch, r *modelResponse) {
	if s.only != "" {
		return
	}
	cds := s.watches[resourcev3.ClusterType]
	switch w.typeURL {
	case resourcev3.ListenerType, resourcev3.RouteType:
		if cds == nil {
			return
		}
		for _, it := range s.news(w, r) {
			for _, j := range s.c.node.pinned(resourcev3.ClusterType, it.since, r.until) {
				t := cds.told[j.name]
				if t == nil || t.initial || t.content != j.bytes || t.resp.until < it.since || cds.answeredBefore(t.resp, r.modelFrame) {
					continue
				}
				// The bound begins when the first listener or route has to wait, so that
				// changes without a pause, each acknowledged late, withhold nothing.
				if waited := r.at.Sub(s.freeAt); waited < modelBound {
					s.failf("%s: %q came with state %d, whose cluster %q is not acknowledged, after %s (R6)", r, it.name, it.since, j.name, waited)
				}
			}
		}
	case resourcev3.ClusterType:
		for _, name := range s.removals(w, r) {
			s.checkRemoval(w, r, name)
		}
	}
}

// removals are the clusters that a response removes.
func (s *modelSession) removals(w *modelWatch, r *modelResponse) []string {
	if s.c.delta {
		return r.removed
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.told)) {
		if !w.told[name].gone && !slices.ContainsFunc(r.resources, func(res modelResource) bool { return res.name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// checkRemoval checks that listeners and routes of a change are acknowledged before one
// of its clusters is removed.
func (s *modelSession) checkRemoval(w *modelWatch, r *modelResponse, name string) {
	node := s.c.node
	since := node.removedAt(resourcev3.ClusterType, name, r.until)
	if since < 0 || node.history[since] == nil || !w.established(name, r.modelFrame) {
		return
	}
	if t := w.told[name]; t == nil || w.subscribedSince(name, t, r.modelFrame) {
		return // the client does not have it, or asked for the name, which it has dropped
	}
	waited := r.at.Sub(node.times[since])
	if waited >= modelBound {
		return
	}
	for _, typeURL := range []string{resourcev3.ListenerType, resourcev3.RouteType} {
		tw := s.watches[typeURL]
		if tw == nil || len(tw.responses) == 0 {
			continue
		}
		for _, j := range node.pinned(typeURL, since, r.until) {
			if !tw.established(j.name, r.modelFrame) {
				continue
			}
			t := tw.told[j.name]
			if tw.content(j.name) != j.bytes {
				s.failf("%s: cluster %q is removed %s after state %d, whose %s %q has not been sent (R6)", r, name, waited, since, modelShort[typeURL], j.name)
			}
			if !t.initial && t.resp.until >= since && !tw.answeredBefore(t.resp, r.modelFrame) {
				s.failf("%s: cluster %q is removed %s after state %d, whose %s %q is not acknowledged (R6)", r, name, waited, since, modelShort[typeURL], j.name)
			}
		}
	}
}

// remember records what the client was told, and which assignments must follow (R1).
func (s *modelSession) remember(w *modelWatch, r *modelResponse) {
	requested := r.index == 0 || w.askedSince(w.responses[r.index-1], r)
	for _, name := range s.removals(w, r) {
		if s.c.delta || isFull(w.typeURL) {
			w.told[name] = &modelTold{gone: true, resp: r}
		}
	}
	for _, res := range r.resources {
		t := w.told[res.name]
		changed := t == nil || t.gone || (t.initial && t.version != res.version) || (!t.initial && t.content != res.content)
		gone := s.c.node.find(r.typeURL, res.name, res.content, 0, r.until) == nil
		w.told[res.name] = &modelTold{content: res.content, version: res.version, gone: gone, resp: r}
		if w.typeURL == resourcev3.ClusterType {
			service := s.serviceOf(res, r)
			if service != "" && (changed || requested || s.c.delta) {
				s.may[service] = true
			}
			// A cluster that the client is allowed to keep is one that it has.
			kept := s.c.node.find(r.typeURL, res.name, res.content, r.from, r.until) == nil
			if service != "" && changed && !kept {
				s.owed[service] = r
			}
		}
		if w.typeURL == resourcev3.EndpointType {
			delete(s.owed, res.name)
			delete(s.may, res.name)
		}
	}
	if w.typeURL == resourcev3.EndpointType {
		for _, name := range r.removed {
			delete(s.owed, name)
			delete(s.may, name)
		}
	}
	if w.typeURL == resourcev3.ClusterType {
		for service := range s.owed {
			if !s.uses(w, service, r) {
				delete(s.owed, service)
			}
		}
	}
}

// uses reports whether the client was told of a cluster with an assignment.
func (s *modelSession) uses(w *modelWatch, service string, r *modelResponse) bool {
	for name, t := range w.told {
		if !t.gone && s.serviceOf(modelResource{name: name, content: t.content}, r) == service {
			return true
		}
	}
	return false
}

// apply applies a response to what the client holds, by the rules of the protocol.
func (s *modelSession) apply(w *modelWatch, r *modelResponse) {
	held := s.c.held[w.typeURL]
	if !s.c.delta && isFull(w.typeURL) {
		clear(held)
	}
	for _, name := range r.removed {
		delete(held, name)
	}
	for _, res := range r.resources {
		if w.sub.matches(res.name) {
			held[res.name] = res
		}
	}
	if w.typeURL == resourcev3.ClusterType && s.c.auto {
		s.c.followClusters()
	}
}

// followClusters subscribes to the assignments of the clusters that the client holds,
// and to no others.
func (c *modelClient) followClusters() {
	w := c.watch(resourcev3.EndpointType)
	want := map[string]bool{}
	for name, res := range c.held[resourcev3.ClusterType] {
		if it := c.node.find(resourcev3.ClusterType, name, res.content, 0, len(c.node.history)-1); it != nil && it.service != "" {
			want[it.service] = true
		}
	}
	if w == nil {
		if s := c.session(resourcev3.EndpointType); s != nil && len(want) > 0 {
			s.open(resourcev3.EndpointType, modelSub{names: want}, false, nil)
		}
		return
	}
	if w.sub.wildcard {
		return
	}
	var add, drop []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !w.sub.names[name] {
			add = append(add, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.sub.names)) {
		if !want[name] {
			drop = append(drop, name)
		}
	}
	if len(add)+len(drop) > 0 {
		c.session(resourcev3.EndpointType).change(w, add, drop)
	}
}

// checkPrompt checks, when the server has nothing to do and the client has read
// everything, that nothing waits that does not have to: only listeners and routes may
// wait, for the ACK of clusters, or for a client that is warming to ask for clusters.
func (s *modelSession) checkPrompt() {
	state := s.c.node.state()
	if state == nil {
		return
	}
	cds := s.watches[resourcev3.ClusterType]
	waits := cds == nil && s.edsFirst != nil ||
		cds != nil && slices.ContainsFunc(cds.responses, func(r *modelResponse) bool { return r.answered == 0 })
	waits = waits && !s.c.m.atRest
	for _, typeURL := range modelTypes {
		w := s.watches[typeURL]
		if w == nil || (!s.c.delta && w.stale()) {
			continue
		}
		if waits && (typeURL == resourcev3.ListenerType || typeURL == resourcev3.RouteType) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(state[typeURL])) {
			if w.sub.matches(name) && !w.isTold(s, state.get(typeURL, name)) {
				s.failf("%s %q of state %d is not sent", modelShort[typeURL], name, len(s.c.node.history)-1)
			}
		}
		if typeURL == resourcev3.EndpointType {
			for _, name := range slices.Sorted(maps.Keys(s.owed)) {
				if w.sub.matches(name) && state.get(typeURL, name) != nil && !s.settledRejection(w, name) {
					s.failf("EDS %q does not follow its cluster, which was sent with #%s (R1)", name, s.owed[name].nonce)
				}
			}
		}
	}
}

// settledRejection reports whether the client rejected the newest content.
func (s *modelSession) settledRejection(w *modelWatch, name string) bool {
	t := w.told[name]
	return t != nil && t.rejected()
}

// isTold reports whether the client was told of the present content of a resource.
func (w *modelWatch) isTold(s *modelSession, it *modelItem) bool {
	t := w.told[it.name]
	if t == nil || t.gone {
		return false
	}
	if t.initial {
		version, known := s.c.m.versions.byBytes[it.bytes]
		return known && version == t.version
	}
	return t.content == it.bytes
}

// checkRest checks what the client holds when everything has been read and acknowledged,
// and all bounds have passed.
func (s *modelSession) checkRest() {
	state := s.c.node.state()
	if state == nil {
		return
	}
	s.checkPrompt()
	for _, typeURL := range modelTypes {
		w := s.watches[typeURL]
		if w == nil {
			continue
		}
		if len(w.responses) == 0 && w.sub.wildcard && (s.c.delta || isFull(typeURL)) {
			s.failf("%s: the first request was never answered", modelShort[typeURL])
		}
		if w.repeated > 0 && slices.ContainsFunc(slices.Collect(maps.Keys(state[typeURL])), w.sub.matches) && !slices.ContainsFunc(w.responses, func(r *modelResponse) bool { return r.high >= w.repeated }) {
			s.failf("%s: the repeated request was not answered (R3)", modelShort[typeURL])
		}
		names := map[string]bool{}
		maps.Copy(names, w.sub.names)
		for name := range state[typeURL] {
			names[name] = true
		}
		for name := range s.c.held[typeURL] {
			names[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if !strings.HasSuffix(name, "/*") {
				s.checkHeld(w, name, state.get(typeURL, name))
			}
		}
	}
}

// checkHeld checks what the client holds of a name; it is nil if the node does not have
// it.
func (s *modelSession) checkHeld(w *modelWatch, name string, it *modelItem) {
	short := modelShort[w.typeURL]
	held, isHeld := s.c.held[w.typeURL][name]
	t := w.told[name]
	if !w.sub.matches(name) {
		if isHeld {
			panic("the model holds what it is not subscribed to")
		}
		return
	}
	if t.isRejectedAs(it) {
		return
	}
	if it == nil {
		s.checkMissing(w, name, isHeld, held)
		return
	}
	if !isHeld {
		s.failf("%s %q is not held", short, name)
	}
	if held.content != it.bytes {
		s.failf("%s %q is held as %s, but the node has %d", short, name, contentName(w.typeURL, held), it.variant)
	}
	if s.c.delta && held.version != s.c.m.versions.byBytes[it.bytes] {
		s.failf("%s %q is held with version %q, want %q", short, name, held.version, s.c.m.versions.byBytes[it.bytes])
	}
	if at := w.subscribedAt(name); at > 0 && s.c.delta && (t == nil || !t.initial) && !w.toldSince(name, at) {
		s.failf("%s %q was subscribed to again, or unsubscribed from beside a wildcard, and not sent again (R3)", short, name)
	}
	if s.edsFirst != nil && t != nil && t.initial && (w.typeURL == resourcev3.EndpointType && s.edsFirst[name] ||
		w.typeURL == resourcev3.ClusterType && s.edsFirst[it.service]) {
		s.failf("%s %q was not sent to a client that asked for assignments first (R2)", short, name)
	}
}

// isRejectedAs reports whether the client rejected the present content, which is nil if
// there is none.
func (t *modelTold) isRejectedAs(it *modelItem) bool {
	if t == nil || !t.rejected() {
		return false
	}
	if it == nil {
		return t.gone
	}
	return t.content == it.bytes
}

// toldSince reports whether a response that can know a request tells of a name.
func (w *modelWatch) toldSince(name string, request int) bool {
	for _, r := range w.responses {
		if r.high < request {
			continue
		}
		if slices.Contains(r.removed, name) || slices.ContainsFunc(r.resources, func(res modelResource) bool { return res.name == name }) {
			return true
		}
	}
	return false
}

// cannotBeTold reports whether a response with the resource was on its way while the
// client unsubscribed from what it matched, and subscribed to a glob or to all. The server
// cannot know that the client has the resource.
func (w *modelWatch) cannotBeTold(name string, t *modelTold) bool {
	return t != nil && !w.sub.names[name] && slices.ContainsFunc([]string{"*", modelPool + "*"}, func(key string) bool {
		at := w.subscribedAt(key)
		return at > w.subs[0].request && t.low() < at
	})
}

func (s *modelSession) checkMissing(w *modelWatch, name string, isHeld bool, held modelResource) {
	short := modelShort[w.typeURL]
	t := w.told[name]
	switch {
	case !s.c.delta && isFull(w.typeURL) && w.last() != nil && w.last().rejected:
		// The client rejected the response without it.
	case s.c.delta || isFull(w.typeURL):
		if w.cannotBeTold(name, t) {
			return
		}
		if isHeld {
			s.failf("%s %q is held as %s, but the node does not have it", short, name, contentName(w.typeURL, held))
		}
		if s.c.delta && w.sub.names[name] && !w.toldSince(name, w.subscribedAt(name)) {
			s.failf("%s %q does not exist, and the client was not told so (R5)", short, name)
		}
	case w.typeURL == resourcev3.EndpointType && w.sub.names[name]:
		if t == nil || (!isHeld && !t.rejected()) {
			s.failf("%s %q does not exist, and the client has no empty assignment (R5)", short, name)
		}
	}
	if w.typeURL == resourcev3.EndpointType && w.sub.names[name] && s.owed[name] != nil {
		s.failf("EDS %q, which does not exist, does not follow its cluster (R1)", name)
	}
}

// modelVariants is the number of contents of a name.
const modelVariants = 4

// modelBound is the server's bound for an ACK in make before break.
const modelBound = 5 * time.Second

// emptyHeld is what a new client holds.
func emptyHeld() map[string]map[string]modelResource {
	held := map[string]map[string]modelResource{}
	for _, typeURL := range modelTypes {
		held[typeURL] = map[string]modelResource{}
	}
	return held
}
