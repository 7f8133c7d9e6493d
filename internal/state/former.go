package state

import "github.com/xdswal/xdswal/journal"

// clusterType is the type of which a node keeps former states.
const clusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// Bounds of the former clusters of a node.
const (
	maxFormer        = 8
	maxFormerChanges = 1024
)

// Former is what the clusters of a node were from the event First to the event Last. A
// client that reconnects may still have them, and routes to those that were removed.
type Former struct {
	Type        *Type
	First, Last journal.Sequence

	changes int // number of clusters that the next state changed or removed
}

// FormerClusters returns what the clusters of the node were before its last events, the
// oldest first. They are of the last 8 events that changed clusters, and of fewer if
// those changed many. A snapshot does not contain them.
func (n *Node) FormerClusters() []Former { return n.former }

// ClustersSince returns the sequence of the last event that changed the node's clusters,
// or 0 if the node was restored from a snapshot since.
func (n *Node) ClustersSince() journal.Sequence { return n.clustersSince }

// keepClusters appends the clusters of a node to its former ones, before an event changes
// them.
func (n *Node) keepClusters(before *Node, ev *journal.Event) {
	for i := range ev.Types {
		tc := &ev.Types[i]
		if tc.TypeURL != clusterType {
			continue
		}
		n.clustersSince = ev.Sequence
		t := before.Type(clusterType)
		if t == nil || t.Len() == 0 {
			return
		}
		former := append(before.former[:len(before.former):len(before.former)],
			Former{t, before.clustersSince, before.seq, len(tc.Upserts) + len(tc.Deletes)})
		changes, from := 0, len(former)
		for from > 0 && len(former)-from < maxFormer && changes+former[from-1].changes <= maxFormerChanges {
			from--
			changes += former[from].changes
		}
		n.former = former[from:]
		if from == len(former) {
			n.former = nil
		}
		return
	}
}
