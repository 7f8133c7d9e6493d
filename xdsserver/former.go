package xdsserver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// A SotW client that reconnects does not say what it has, only the version of its clusters.
// Its node keeps what the clusters were before the last events, so the version says which
// removed clusters the client still has, and has routes to. While removed clusters are
// held, the version that is sent has a suffix: heldMark, and the sequences of the states
// that they are from.
const heldMark = "~held "

// maxHeldStates bounds the sequences in a version: a node keeps no more former states.
const maxHeldStates = 8

// heldVersion returns the version of an answer that contains held clusters.
func heldVersion(version string, held map[string]heldResource) string {
	if len(held) == 0 {
		return version
	}
	var from []uint64 // a Sequence prints 20 digits
	for _, h := range held {
		from = append(from, uint64(h.from))
	}
	slices.Sort(from)
	from = slices.Compact(from)
	from = from[max(0, len(from)-maxHeldStates):]
	return version + heldMark + strings.Trim(fmt.Sprint(from), "[]")
}

func cutHeldVersion(v string) (version string, held []journal.Sequence) {
	version, text, _ := strings.Cut(v, heldMark)
	for field := range strings.FieldsSeq(text) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return v, nil
		}
		held = append(held, journal.Sequence(n))
	}
	return version, held
}

// formerClusters returns the clusters that a client with a version has and that its node
// no longer has, by name, and the sequence of the state that the version is from, or 0 if
// that is not known.
func formerClusters(node *state.Node, typeURL, version string) (gone map[string]heldResource, seq journal.Sequence) {
	version, held := cutHeldVersion(version)
	now := state.TypeOf(node, typeURL)
	if isVersion(version, now, node.ClustersSince(), node.Sequence()) {
		seq = node.Sequence()
	}
	gone = map[string]heldResource{}
	formers := node.FormerClusters()
	for i := len(formers) - 1; i >= 0; i-- {
		f := &formers[i]
		is := slices.ContainsFunc(held, func(s journal.Sequence) bool { return f.First <= s && s <= f.Last })
		if seq == 0 && isVersion(version, f.Type, f.First, f.Last) {
			is, seq = true, f.Last
		}
		if !is {
			continue
		}
		for r := range f.Type.All() {
			if _, newer := gone[r.Name]; !newer && now.Get(r.Name) == nil {
				gone[r.Name] = heldResource{resource: r, from: f.Last}
			}
		}
	}
	return gone, seq
}

// isVersion reports whether a version is that of a type which a node had from one event to
// another. Without a version of the control plane, it ends in a sequence.
func isVersion(version string, t *state.Type, first, last journal.Sequence) bool {
	if v := t.Version(); v != "" {
		return v == version
	}
	n, err := strconv.ParseUint(version[strings.LastIndexByte(version, '.')+1:], 10, 64)
	return err == nil && first <= journal.Sequence(n) && journal.Sequence(n) <= last
}
