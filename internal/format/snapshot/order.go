package snapshot

import (
	"errors"
	"fmt"
)

var errOrder = errors.New("not in sorted order")

// order is the position in a snapshot after the last record. The writer and the
// reader return an error for a record that is out of order, whatever the sink checks.
type order struct {
	cache, node, url, name         string
	inNode, inType, afterResources bool
}

func (o *order) toNode(cache, node string) error {
	if o.inNode && (cache < o.cache || cache == o.cache && node <= o.node) {
		return fmt.Errorf("node %q of cache %q: %w", node, cache, errOrder)
	}
	*o = order{cache: cache, node: node, inNode: true}
	return nil
}

func (o *order) toType(url string) error {
	if !o.inNode || o.inType && url <= o.url {
		return fmt.Errorf("type %q of node %q: %w", url, o.node, errOrder)
	}
	o.url, o.inType = url, true
	o.name, o.afterResources = "", false
	return nil
}

// toResources moves past a sorted run of resources.
func (o *order) toResources(first, last string) error {
	if !o.inType || o.afterResources && first <= o.name {
		return fmt.Errorf("resource %q of type %q: %w", first, o.url, errOrder)
	}
	o.name, o.afterResources = last, true
	return nil
}
