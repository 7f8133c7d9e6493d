package workload

import (
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal/bench/corpus"
)

// series creates consecutive snapshots of one node, as a control plane does that builds
// a whole snapshot for every change. Each candidate has its own series, because the cost
// for xdswal depends on the last snapshot that the candidate has set.
type series struct {
	last     *cachev3.Snapshot
	revision int    // of the last change
	versions int    // number of snapshots
	changed  string // name of the resource that the last snapshot replaced
}

// newSeries returns a series that starts with a snapshot, which series may share.
func newSeries(first *cachev3.Snapshot) *series { return &series{last: first} }

// next returns a snapshot in which one assignment of endpoints is new; all
// other messages are the same pointers.
func (s *series) next() *cachev3.Snapshot { return s.with(s.change()) }

// change returns the next new assignment.
func (s *series) change() types.Resource {
	s.revision++
	number := endpointNumber(s.revision % max(1, len(s.last.Resources[types.Endpoint].Items)/20))
	return corpus.Endpoints(number, s.revision)
}

// with returns a snapshot in which one assignment is replaced. Its version map, which
// belongs to the contents, is not that of the last snapshot.
func (s *series) with(m types.Resource) *cachev3.Snapshot {
	next := &cachev3.Snapshot{Resources: s.last.Resources}
	group := &next.Resources[types.Endpoint]
	items := maps.Clone(group.Items)
	s.changed = cachev3.GetResourceName(m)
	items[s.changed] = types.ResourceWithTTL{Resource: m}
	s.versions++
	*group = cachev3.Resources{Version: version(s.versions), Items: items}
	s.last = next
	return next
}

// version returns the version of the n-th change.
func version(n int) string { return "r" + strconv.Itoa(n) }

// take returns the next n snapshots, so that their creation is not measured.
func (s *series) take(n int) []*cachev3.Snapshot {
	out := make([]*cachev3.Snapshot, n)
	for i := range out {
		out[i] = s.next()
	}
	return out
}

// checkNode checks that a node is equal to the last snapshot. It compares the contents of
// the assignments, of which whole includes those that the last change did not replace.
func (s *series) checkNode(have cachev3.ResourceSnapshot, whole bool) error {
	for at := range s.last.Resources {
		url, err := cachev3.GetResponseTypeURL(types.ResponseType(at))
		if err != nil {
			return fmt.Errorf("name type %d: %w", at, err)
		}
		want, got := s.last.Resources[at], have.GetResourcesAndTTL(url)
		if have.GetVersion(url) != want.Version || len(got) != len(want.Items) {
			return fmt.Errorf("%s: got version %q and %d resources, want %q and %d", url, have.GetVersion(url), len(got), want.Version, len(want.Items))
		}
		if url != resourcev3.EndpointType {
			continue
		}
		for name, item := range want.Items {
			if !whole && name != s.changed {
				continue
			}
			if err := sameBytes(got[name].Resource, item.Resource); err != nil {
				return fmt.Errorf("resource %q: %w", name, err)
			}
		}
	}
	return nil
}

func sameBytes(got, want types.Resource) error {
	if got == nil {
		return errors.New("missing")
	}
	a, err := cachev3.MarshalResource(got)
	if err != nil {
		return fmt.Errorf("marshal: %w", err)
	}
	b, err := cachev3.MarshalResource(want)
	if err != nil {
		return fmt.Errorf("marshal: %w", err)
	}
	if string(a) != string(b) {
		return errors.New("differs from the last one set")
	}
	return nil
}
