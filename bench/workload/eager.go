package workload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/journal"
)

// eagerRestore restores a snapshot file into go-control-plane's own cache: it unmarshals
// every resource and sets each node's snapshot. xdswal's reader, which decompresses in
// parallel, reads the file, so the difference is only the decoding.
func eagerRestore(ctx context.Context, path string, cache cachev3.SnapshotCache, workers int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sink := &eagerSink{decode: decodeAll}
	if workers > 1 {
		group, _ := errgroup.WithContext(ctx)
		group.SetLimit(workers)
		sink.wait = group.Wait
		sink.decode = func(in []*journal.Resource, out []types.Resource) error {
			group.Go(func() error { return decodeAll(in, out) })
			return nil
		}
	}
	_, err = snapshot.Read(ctx, file, func(snapshot.Header) (snapshot.Sink, error) { return sink, nil })
	if err != nil {
		return err
	}
	if sink.wait != nil {
		if err := sink.wait(); err != nil {
			return err
		}
	}
	for _, n := range sink.nodes {
		if err := cache.SetSnapshot(ctx, n.name, n.snapshot()); err != nil {
			return fmt.Errorf("set snapshot: %w", err)
		}
	}
	return nil
}

// eagerSink collects decoded nodes.
type eagerSink struct {
	nodes  []*eagerNode
	decode func(in []*journal.Resource, out []types.Resource) error
	wait   func() error // nil if decode is synchronous
}

type eagerNode struct {
	name  string
	types []*eagerType
}

type eagerType struct {
	url, version string
	parts        [][]types.Resource
}

// Node starts a node.
func (s *eagerSink) Node(_, name string, _ journal.Sequence, _ time.Time) error {
	s.nodes = append(s.nodes, &eagerNode{name: name})
	return nil
}

// Type starts a type of the last node.
func (s *eagerSink) Type(url, version string) error {
	n := s.nodes[len(s.nodes)-1]
	n.types = append(n.types, &eagerType{url: url, version: version})
	return nil
}

// Resources adds resources to the last type.
func (s *eagerSink) Resources(in []*journal.Resource) error {
	n := s.nodes[len(s.nodes)-1]
	t := n.types[len(n.types)-1]
	out := make([]types.Resource, len(in))
	t.parts = append(t.parts, out)
	return s.decode(in, out)
}

func (n *eagerNode) snapshot() *cachev3.Snapshot {
	out := &cachev3.Snapshot{}
	for _, t := range n.types {
		var all []types.Resource
		if len(t.parts) == 1 {
			all = t.parts[0]
		} else {
			all = slices.Concat(t.parts...)
		}
		out.Resources[cachev3.GetResponseType(t.url)] = cachev3.NewResources(t.version, all)
	}
	return out
}

func decodeAll(in []*journal.Resource, out []types.Resource) error {
	var url string
	var mt protoreflect.MessageType
	for i, r := range in {
		if r.TypeURL != url {
			var err error
			if mt, err = protoregistry.GlobalTypes.FindMessageByURL(r.TypeURL); err != nil {
				return fmt.Errorf("decode %q: %w", r.Name, err)
			}
			url = r.TypeURL
		}
		m := mt.New().Interface()
		if err := proto.Unmarshal(r.Value, m); err != nil {
			return fmt.Errorf("decode %q: %w", r.Name, err)
		}
		out[i] = m
	}
	return nil
}

// checkEager checks that the cache contains all resources and, if content is set, that
// each is equal to that of the snapshot file.
func (f *fixture) checkEager(ctx context.Context, cache cachev3.SnapshotCache, content bool) error {
	n := 0
	for _, name := range f.nodes {
		s, err := cache.GetSnapshot(name)
		if err != nil {
			return fmt.Errorf("check node %s: %w", name, err)
		}
		for _, group := range s.(*cachev3.Snapshot).Resources {
			n += len(group.Items)
		}
	}
	if n != f.total {
		return fmt.Errorf("got %d resources in the cache, want %d", n, f.total)
	}
	if !content {
		return nil
	}
	file, err := os.Open(f.snapshot)
	if err != nil {
		return err
	}
	defer file.Close()
	check := &contentCheck{cache: cache}
	_, err = snapshot.Read(ctx, file, func(snapshot.Header) (snapshot.Sink, error) { return check, nil })
	return err
}

// contentCheck compares a cache with a snapshot file.
type contentCheck struct {
	cache cachev3.SnapshotCache
	node  cachev3.ResourceSnapshot
	url   string
}

// Node starts a node.
func (c *contentCheck) Node(_, name string, _ journal.Sequence, _ time.Time) error {
	var err error
	c.node, err = c.cache.GetSnapshot(name)
	return err
}

// Type starts a type.
func (c *contentCheck) Type(url, version string) error {
	c.url = url
	if got := c.node.GetVersion(url); got != version {
		return fmt.Errorf("%s: got version %q, want %q", url, got, version)
	}
	return nil
}

// Resources compares resources.
func (c *contentCheck) Resources(want []*journal.Resource) error {
	have := c.node.GetResourcesAndTTL(c.url)
	for _, r := range want {
		b, err := cachev3.MarshalResource(have[r.Name].Resource)
		if err != nil {
			return fmt.Errorf("marshal %q: %w", r.Name, err)
		}
		if !bytes.Equal(b, r.Value) {
			return fmt.Errorf("resource %q differs from the one in the snapshot", r.Name)
		}
	}
	return nil
}
