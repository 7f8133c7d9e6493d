package xdsserver

import (
	"hash/maphash"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/journal"
)

// answer is a response of one type without its nonce, which differs by stream. It is
// immutable once it is complete.
type answer struct {
	delta     bool
	typeURL   string
	version   string
	resources []*journal.Resource
	// changed are those of the resources that the client does not have.
	changed []*journal.Resource
	removed []string // of the delta protocol
	// heartbeat answers renew TTLs and contain no bodies.
	heartbeat bool
	expires   bool // some of the resources have a TTL
}

// Fields of DiscoveryResponse and DeltaDiscoveryResponse, which have the same numbers up
// to removed_resources, of Resource and of Any. TestWireFormat holds them to the generated
// code.
const (
	responseVersion   = 1
	responseResources = 2
	responseTypeURL   = 4
	responseNonce     = 5
	responseRemoved   = 6

	resourceVersion  = 1
	resourceBody     = 2
	resourceName     = 3
	resourceTTL      = 6
	anyTypeURL       = 1
	anyValue         = 2
	resourceTypeURL  = "type.googleapis.com/envoy.service.discovery.v3.Resource"
	sharedAnswerSize = 16 << 10
)

// marshal returns the response without its nonce in wire format.
func (a *answer) marshal() []byte {
	b := make([]byte, 0, a.size())
	b = appendText(b, responseVersion, a.version)
	for _, r := range a.resources {
		b = protowire.AppendTag(b, responseResources, protowire.BytesType)
		b = a.appendResource(b, r)
	}
	b = appendText(b, responseTypeURL, a.typeURL)
	for _, name := range a.removed {
		b = protowire.AppendTag(b, responseRemoved, protowire.BytesType)
		b = protowire.AppendString(b, name)
	}
	return b
}

// size returns an upper bound of the size of the response.
func (a *answer) size() int {
	const perResource = 64 // tags, lengths and a TTL
	n := len(a.version) + len(a.typeURL) + perResource
	for _, r := range a.resources {
		n += perResource + len(r.Name) + len(r.Version) + len(a.typeURL) + len(r.Value)
		if r.TTL != nil {
			n += len(resourceTypeURL)
		}
	}
	for _, name := range a.removed {
		n += perResource + len(name)
	}
	return n
}

// appendResource appends the length of a resource, and the resource as its protocol has
// it: a Resource in delta, an Any in SotW, which contains a Resource if there is a TTL.
func (a *answer) appendResource(b []byte, r *journal.Resource) []byte {
	body := anySize(a.typeURL, len(r.Value))
	if !a.delta && r.TTL == nil {
		b = protowire.AppendVarint(b, uint64(body))
		return appendAny(b, a.typeURL, r.Value)
	}
	var ttl []byte
	if r.TTL != nil {
		ttl = marshalDuration(*r.TTL)
	}
	size := textSize(resourceVersion, r.Version) + textSize(resourceName, r.Name)
	if !a.heartbeat {
		size += protowire.SizeTag(resourceBody) + protowire.SizeBytes(body)
	}
	if r.TTL != nil {
		size += protowire.SizeTag(resourceTTL) + protowire.SizeBytes(len(ttl))
	}
	if !a.delta {
		b = protowire.AppendVarint(b, uint64(anySize(resourceTypeURL, size)))
		b = appendText(b, anyTypeURL, resourceTypeURL)
		b = protowire.AppendTag(b, anyValue, protowire.BytesType)
	}
	b = protowire.AppendVarint(b, uint64(size))
	b = appendText(b, resourceVersion, r.Version)
	if !a.heartbeat {
		b = protowire.AppendTag(b, resourceBody, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(body))
		b = appendAny(b, a.typeURL, r.Value)
	}
	b = appendText(b, resourceName, r.Name)
	if r.TTL != nil {
		b = protowire.AppendTag(b, resourceTTL, protowire.BytesType)
		b = protowire.AppendBytes(b, ttl)
	}
	return b
}

func anySize(typeURL string, value int) int {
	return textSize(anyTypeURL, typeURL) + protowire.SizeTag(anyValue) + protowire.SizeBytes(value)
}

func appendAny(b []byte, typeURL string, value []byte) []byte {
	b = appendText(b, anyTypeURL, typeURL)
	b = protowire.AppendTag(b, anyValue, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func textSize(num protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(s))
}

func marshalDuration(d time.Duration) []byte {
	var b []byte
	if s := d / time.Second; s != 0 {
		b = protowire.AppendTag(b, durationSeconds, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(s))
	}
	if n := d % time.Second; n != 0 {
		b = protowire.AppendTag(b, durationNanos, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(n))
	}
	return b
}

// message returns the response as a message of go-control-plane, for callbacks. It shares
// the resources' bytes.
func (a *answer) message(nonce string) (*discoveryv3.DiscoveryResponse, *discoveryv3.DeltaDiscoveryResponse) {
	if a.delta {
		out := &discoveryv3.DeltaDiscoveryResponse{
			SystemVersionInfo: a.version, TypeUrl: a.typeURL, RemovedResources: slices.Clone(a.removed), Nonce: nonce,
		}
		for _, r := range a.resources {
			out.Resources = append(out.Resources, a.resourceMessage(r))
		}
		return nil, out
	}
	out := &discoveryv3.DiscoveryResponse{VersionInfo: a.version, TypeUrl: a.typeURL, Nonce: nonce}
	for _, r := range a.resources {
		body := &anypb.Any{TypeUrl: a.typeURL, Value: r.Value}
		if r.TTL != nil {
			wrapped, err := anypb.New(a.resourceMessage(r))
			if err == nil {
				body = wrapped
			}
		}
		out.Resources = append(out.Resources, body)
	}
	return out, nil
}

func (a *answer) resourceMessage(r *journal.Resource) *discoveryv3.Resource {
	out := &discoveryv3.Resource{Name: r.Name, Version: r.Version}
	if !a.heartbeat {
		out.Resource = &anypb.Any{TypeUrl: a.typeURL, Value: r.Value}
	}
	if r.TTL != nil {
		out.Ttl = durationpb.New(*r.TTL)
	}
	return out
}

// answers shares the bytes of large answers among all streams that are sent the same. It
// keeps nothing in memory that no stream is sending. The zero value is ready for use.
type answers struct {
	seedOnce sync.Once
	seed     maphash.Seed
	shared   sync.Map // of weak.Pointer[sharedBody], by answerKey
}

// answerKey identifies an answer. Equal resources of one state are the same pointers.
type answerKey struct {
	delta, heartbeat bool
	typeURL, version string
	resources        int
	hash             uint64
}

type sharedBody struct {
	of    *answer
	once  sync.Once
	bytes []byte
}

// marshal returns the marshaled answer. The caller keeps it until it has sent the bytes, so
// that others find it. Small answers are not shared: to marshal them is cheaper than to
// find them.
func (as *answers) marshal(a *answer) *sharedBody {
	mine := &sharedBody{of: a}
	if a.size() < sharedAnswerSize {
		return mine.marshal()
	}
	key := as.key(a)
	for {
		v, loaded := as.shared.LoadOrStore(key, weak.Make(mine))
		if !loaded {
			runtime.AddCleanup(mine, func(p weak.Pointer[sharedBody]) { as.shared.CompareAndDelete(key, p) }, weak.Make(mine))
			return mine.marshal()
		}
		switch found := v.(weak.Pointer[sharedBody]).Value(); {
		case found == nil:
			as.shared.CompareAndDelete(key, v)
		case !found.of.equal(a):
			return mine.marshal() // another answer has the same hash
		default:
			return found.marshal()
		}
	}
}

func (b *sharedBody) marshal() *sharedBody {
	b.once.Do(func() { b.bytes = b.of.marshal() })
	return b
}

func (as *answers) key(a *answer) answerKey {
	as.seedOnce.Do(func() { as.seed = maphash.MakeSeed() })
	var h maphash.Hash
	h.SetSeed(as.seed)
	for _, r := range a.resources {
		maphash.WriteComparable(&h, r) // its address
	}
	for _, name := range a.removed {
		h.WriteString(name)
		h.WriteByte(0)
	}
	return answerKey{a.delta, a.heartbeat, a.typeURL, a.version, len(a.resources), h.Sum64()}
}

func (a *answer) equal(b *answer) bool {
	return a.delta == b.delta && a.heartbeat == b.heartbeat && a.typeURL == b.typeURL && a.version == b.version &&
		slices.Equal(a.resources, b.resources) && slices.Equal(a.removed, b.removed)
}
