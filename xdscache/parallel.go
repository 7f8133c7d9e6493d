package xdscache

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

// chunkSize is the number of resources that a goroutine compares at a time, and chunkPages
// that of pages of the state, which have 16 to 32 resources each.
const (
	chunkSize  = 64
	chunkPages = 4
)

// scratch is the memory of one goroutine that compares resources. It is reused for each
// chunk.
type scratch struct {
	items []item
	buf   []byte
}

// inParallel calls fn for all chunks of n items, [lo, hi) of this size each, on all processors, and
// returns the results in order. Few items are done by the calling goroutine. The error is
// that of the first chunk that has one.
func inParallel[T any](n, size int, fn func(s *scratch, lo, hi int) (T, error)) ([]T, error) {
	chunks := (n + size - 1) / size
	results, errs := make([]T, chunks), make([]error, chunks)
	var next atomic.Int64
	work := func() {
		var s scratch
		for i := int(next.Add(1)) - 1; i < chunks; i = int(next.Add(1)) - 1 {
			s.items = s.items[:0]
			results[i], errs[i] = fn(&s, i*size, min(n, (i+1)*size))
		}
	}
	var wg sync.WaitGroup
	for range min(chunks, runtime.GOMAXPROCS(0)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// content is what a message contains.
type content struct {
	typeURL string
	value   []byte
	// shared reports that value never changes. Else it is valid until the next use of the
	// scratch.
	shared bool
	// version is that of a message which a cache has served before.
	version string
}

// content returns the content of an item's message.
func (s *scratch) content(url string, it *item) (content, error) {
	switch {
	case isNil(it.Resource):
		return content{}, fmt.Errorf("resource %q of type %s is nil", it.name, url)
	case it.TTL != nil && *it.TTL < 0:
		return content{}, fmt.Errorf("resource %q of type %s has a negative TTL; omit it for a resource that does not expire", it.name, url)
	}
	if r, ok := it.Resource.(*Resource); ok {
		return content{typeURL: r.TypeURL, value: r.Value, shared: true, version: r.Version}, nil
	}
	if it.known != nil && (it.known.TypeURL == url || it.known.TypeURL == ownTypeURL(url, it.Resource)) {
		return content{typeURL: it.known.TypeURL, value: it.known.Value, shared: true}, nil
	}
	// Deterministic, so that equal messages have equal bytes, as go-control-plane has it.
	value, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(s.buf[:0], it.Resource)
	if err != nil {
		return content{}, fmt.Errorf("marshal resource %q of type %s: %w", it.name, url, err)
	}
	s.buf = value
	return content{typeURL: ownTypeURL(url, it.Resource), value: value}, nil
}
