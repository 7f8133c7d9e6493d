// Package backendtest tests drivers of [backends.Backend].
//
// [Run] is the conformance suite: every clause of the contract that a driver
// can be seen to keep, in a few lines for each driver, a user's own included.
// [Memory] is a backend for the unit tests of whatever uses one, and [Faulty]
// makes any backend fail on purpose.
package backendtest

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// Run tests the driver that open opens against the contract of
// [backends.Backend], in one named subtest a clause.
//
// open is called once a subtest and must return a backend that is fresh and
// empty, such as a new directory or a prefix never used before; it registers
// with t.Cleanup whatever clears up. Subtests run one after another. The suite
// writes about 100 MB in all; run it with -race.
func Run(t *testing.T, open func(t *testing.T) backends.Backend) {
	t.Helper()
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			require.Empty(t, keysOf(t, b, ""), "open must return an empty backend")
			c.test(t, b)
			checkStore(t, b)
		})
	}
}

// clauses are the parts of the contract, each with the test of it.
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
	{"create-only race", testCreateRace},
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

// checkStore is the invariant after every test: what List says is in order,
// and is what Get yields.
func checkStore(t *testing.T, b backends.Backend) {
	t.Helper()
	for _, o := range list(t, b, "") {
		require.NoError(t, backends.ValidKey(o.Key), "a listed key must be valid")
		r, err := b.Get(t.Context(), o.Key, 0, -1)
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, n, o.Size, "size of %q", o.Key)
		require.False(t, o.ModTime.IsZero(), "time of %q", o.Key)
	}
}
