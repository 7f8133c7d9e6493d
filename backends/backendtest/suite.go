// Package backendtest tests drivers of [backends.Backend], including drivers
// outside this module.
//
// [Run] is the conformance suite: it tests every clause of the contract that a test
// can observe. Durability is not among them. [NewMemory] is a backend for tests of
// code that uses one.
package backendtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// Run tests the driver that open returns against the contract of
// [backends.Backend], in one named subtest for each clause.
//
// open is called once for each subtest and must return an empty backend, such as a
// new directory or a prefix never used before. It registers cleanup with t.Cleanup.
// Subtests run sequentially and write about 250 MB in all. Run them with the race
// detector too.
//
// A backend that implements [backends.ConditionalCreator] is probed first. If the store is
// weak, the suite tests what the contract says of such a store.
func Run(t *testing.T, open func(t *testing.T) backends.Backend) {
	t.Helper()
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			require.Empty(t, keysOf(t, b, ""), "open must return an empty backend")
			probe(t, b)
			c.test(t, b)
			checkStore(t, b)
		})
	}
}

// clauses are the clauses of the contract with their tests.
var clauses = []struct {
	name string
	test func(*testing.T, backends.Backend)
}{
	{"location is printable", testLocation},
	{"round trip", testRoundTrip},
	{"empty object", testEmpty},
	{"large object", testLarge},
	{"body not at its start", testBodyOffset},
	{"body that fails midway", testBodyFails},
	{"create only", testCreateOnly},
	{"create only in parts", testCreateOnlyLarge},
	{"create-only race", testCreateRace},
	{"create-only race in parts", testCreateRaceLarge},
	{"ranges", testRanges},
	{"ranges outside", testRangesOutside},
	{"reader closed early", testCloseEarly},
	{"missing", testMissing},
	{"list order and prefixes", testList},
	{"list sees no partial object", testListWhole},
	{"delete", testDelete},
	{"delete and create again", testRecreate},
	{"bad keys", testBadKeys},
	{"longest keys", testLongKeys},
	{"key below a key", testNestedKeys},
	{"context done before", testCancelledBefore},
	{"context done during put", testCancelledPut},
	{"context done during read", testCancelledRead},
	{"concurrent use", testConcurrent},
}

// checkStore checks the invariant after every test: List and Get agree.
func checkStore(t *testing.T, b backends.Backend) {
	t.Helper()
	for _, o := range list(t, b, "") {
		require.NoError(t, backends.ValidKey(o.Key), "a listed key must be valid")
		require.EqualValues(t, len(get(t, b, o.Key)), o.Size, "size of %q", o.Key)
		require.False(t, o.ModTime.IsZero(), "time of %q", o.Key)
	}
}
