package snapshot_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func TestRoundTrip(t *testing.T) {
	tests := []struct {
		name   string
		state  func(t *testing.T) *state.State
		frames int // minimum, including header and trailer
	}{
		{"nothing", func(*testing.T) *state.State { return &state.State{} }, 2},
		{"small", func(t *testing.T) *state.State { return small(t) }, 3},
		{"random", func(t *testing.T) *state.State { return random(t, 1, 400, 300) }, 3},
		{"random over several frames", func(t *testing.T) *state.State { return random(t, 2, 300, 20_000) }, 5},
		{"one resource in each frame", func(t *testing.T) *state.State { return large(t, 9) }, 11},
		{"one resource larger than a frame", func(t *testing.T) *state.State {
			return ofValues(t, 10, randomBytes(rand.New(rand.NewPCG(1, 1)), 5<<20), 10)
		}, 4},
		{"many empty nodes", func(t *testing.T) *state.State { return manyNodes(t, 30_000, 0) }, 4},
		{"many nodes of one resource", func(t *testing.T) *state.State { return manyNodes(t, 10_000, 1) }, 3},
		{"many types", manyTypes, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer noLeak(t)()
			st := tt.state(t)
			f := file(t, st)
			require.GreaterOrEqual(t, len(split(t, f)), tt.frames)
			requireRoundTrip(t, st, f)
		})
	}
}

// ofValues returns a state of one type with the given values, or with values of the
// given sizes.
func ofValues(tb testing.TB, values ...any) *state.State {
	tb.Helper()
	b := state.NewBuilder(1, time.Unix(1, 0))
	require.NoError(tb, b.Node("snapshot/default", "node", 1, time.Unix(1, 0)))
	require.NoError(tb, b.Type("type.googleapis.com/T", "1"))
	for i, v := range values {
		value, ok := v.([]byte)
		if !ok {
			value = bytes.Repeat([]byte{byte(i + 1)}, v.(int))
		}
		require.NoError(tb, b.Resources([]*journal.Resource{{Name: fmt.Sprintf("r-%04d", i), TypeURL: "type.googleapis.com/T", Version: "1", Value: value}}))
	}
	return b.Build()
}

func manyNodes(tb testing.TB, n, resources int) *state.State {
	tb.Helper()
	b := state.NewBuilder(1, time.Unix(1, 0))
	for i := range n {
		require.NoError(tb, b.Node("snapshot/default", fmt.Sprintf("a-node-with-a-rather-long-name-as-they-are-%06d", i), 1, time.Unix(1, 0)))
		if resources == 0 {
			continue
		}
		require.NoError(tb, b.Type("type.googleapis.com/T", "1"))
		for k := range resources {
			require.NoError(tb, b.Resources([]*journal.Resource{{Name: fmt.Sprint(k), TypeURL: "type.googleapis.com/T", Version: "1"}}))
		}
	}
	return b.Build()
}

func manyTypes(t *testing.T) *state.State {
	t.Helper()
	b := state.NewBuilder(1, time.Unix(1, 0))
	require.NoError(t, b.Node("snapshot/default", "node", 1, time.Unix(1, 0)))
	for i := range 30_000 {
		require.NoError(t, b.Type(fmt.Sprintf("type.googleapis.com/a.type.with.a.rather.long.url.v%06d", i), "1"))
	}
	return b.Build()
}

// A frame ends with the record that fills it. If the node and the type have more
// resources, the next frame begins with both, marked as continued.
func TestFrameBoundaries(t *testing.T) {
	const target = 1 << 20
	// The size of the first frame without the value of its only resource.
	overhead := len(split(t, file(t, ofValues(t, 1<<19)))[1].plain) - 1<<19
	tests := []struct {
		name   string
		values []any
		plain  []int // sizes of frames, 0 is any
	}{
		{"a byte less", []any{target - overhead - 1}, []int{0, target - 1, 0}},
		{"exactly", []any{target - overhead}, []int{0, target, 0}},
		{"a byte more", []any{target - overhead + 1}, []int{0, target + 1, 0}},
		{"a byte less, and more", []any{target - overhead - 1, 1}, []int{0, 0, 0}},
		{"exactly, and more", []any{target - overhead, 1}, []int{0, target, 0, 0}},
		{"a byte more, and more", []any{target - overhead + 1, 1}, []int{0, target + 1, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := ofValues(t, tt.values...)
			f := file(t, st)
			parts := split(t, f)
			require.Len(t, parts, len(tt.plain))
			for i, size := range tt.plain {
				if size != 0 {
					require.Len(t, parts[i].plain, size)
				}
			}
			for i, p := range parts[1 : len(parts)-1] {
				recs := records(t, p.plain)
				require.Equal(t, i > 0, recs[0].GetNode().GetContinued())
				require.Equal(t, i > 0, recs[1].GetType().GetContinued())
				require.NotNil(t, recs[2].GetResource(), "a frame does not continue what has no more")
			}
			requireRoundTrip(t, st, f)
		})
	}
}

// A frame that begins with a new node or type does not repeat the previous one.
func TestFrameBeginsWithNewNode(t *testing.T) {
	b := state.NewBuilder(1, time.Unix(1, 0))
	for _, node := range []string{"a", "b"} {
		require.NoError(t, b.Node("snapshot/default", node, 1, time.Unix(1, 0)))
		for _, typ := range []string{"t", "u"} {
			require.NoError(t, b.Type(typ, "1"))
			require.NoError(t, b.Resources([]*journal.Resource{{Name: "r", TypeURL: typ, Value: make([]byte, 1<<20)}}))
		}
	}
	st := b.Build()
	f := file(t, st)
	parts := split(t, f)
	require.Len(t, parts, 6)
	type beginning struct {
		node          string
		nodeContinued bool
		typ           string
		typeContinued bool
	}
	var got []beginning
	for _, p := range parts[1:5] {
		recs := records(t, p.plain)
		require.Len(t, recs, 3)
		n, typ := recs[0].GetNode(), recs[1].GetType()
		got = append(got, beginning{n.GetNode(), n.GetContinued(), typ.GetTypeUrl(), typ.GetContinued()})
	}
	require.Equal(t, []beginning{
		{"a", false, "t", false}, {"a", true, "u", false}, {"b", false, "t", false}, {"b", true, "u", false},
	}, got)
	requireRoundTrip(t, st, f)
}

// The file of a state does not depend on the number of processors.
func TestWriterIsDeterministic(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	st := random(t, 3, 300, 15_000)
	want := file(t, st)
	for _, procs := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(procs)
		require.True(t, bytes.Equal(want, file(t, st)), "%d processors", procs)
		requireRoundTrip(t, st, want)
	}
}

// The zstd tool reads a snapshot without an error.
func TestZstdTool(t *testing.T) {
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	for name, st := range map[string]*state.State{
		"small": small(t), "frames": large(t, 5), "random": random(t, 4, 300, 15_000),
	} {
		t.Run(name, func(t *testing.T) {
			f := file(t, st)
			path := filepath.Join(t.TempDir(), "s.zst")
			require.NoError(t, os.WriteFile(path, f, 0o600))
			out, err := exec.CommandContext(t.Context(), tool, "-t", path).CombinedOutput()
			require.NoError(t, err, "%s", out)
			plain, err := exec.CommandContext(t.Context(), tool, "-dc", path).Output()
			require.NoError(t, err)
			require.True(t, bytes.Equal(streamed(t, f), plain))
			require.Equal(t, st.Digest(), decode(t, plain).Digest())
		})
	}
}

func TestName(t *testing.T) {
	for _, n := range []snapshot.Name{{}, {1, 1}, {3, 1234}, {9_999_999_999, 1<<64 - 1}, {12_345_678_901, 5}} {
		got, ok := snapshot.ParseName(n.String())
		require.True(t, ok, n.String())
		require.Equal(t, n, got)
		got, ok = snapshot.ParseName("s3/prefix/snapshots/" + n.String())
		require.True(t, ok)
		require.Equal(t, n, got)
	}
	require.Equal(t, "snapshot-0000000003-00000000000000001234.zst", snapshot.Name{Epoch: 3, Sequence: 1234}.String())
}

func TestNamesSort(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var names []snapshot.Name
	var texts []string
	for range 300 {
		n := snapshot.Name{Epoch: rnd.Uint64N(1 << rnd.Uint64N(33)), Sequence: journal.Sequence(rnd.Uint64() >> rnd.Uint64N(64))}
		names = append(names, n)
		texts = append(texts, n.String())
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := names[i], names[j]
		return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Sequence < b.Sequence
	})
	slices.Sort(texts)
	for i, n := range names {
		require.Equal(t, n.String(), texts[i])
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, s := range []string{
		"",
		"snapshot-",
		".zst",
		"snapshot-.zst",
		"snapshot-0000000003.zst",
		"snapshot-3-00000000000000001234.zst",
		"snapshot-00000000003-00000000000000001234.zst",
		"snapshot-0000000003-1234.zst",
		"snapshot-0000000003-000000000000000001234.zst",
		"snapshot-0000000003-00000000000000001234",
		"snapshot-0000000003-00000000000000001234.zst.tmp",
		"snapshot-0000000003-00000000000000001234.zst/",
		"snapshot-0000000003-00000000000000001234-5.zst",
		"snapshot-0000000003--0000000000000001234.zst",
		"snapshot-000000000x-00000000000000001234.zst",
		"snapshot-+000000003-00000000000000001234.zst",
		"snapshot-0000000003-99999999999999999999.zst",
		"snapshot-99999999999999999999-00000000000000001234.zst",
		" snapshot-0000000003-00000000000000001234.zst",
		".snapshot-0000000003-00000000000000001234.zst",
		"Snapshot-0000000003-00000000000000001234.zst",
	} {
		n, ok := snapshot.ParseName(s)
		require.False(t, ok, s)
		require.Zero(t, n, s)
	}
}

var writeGolden = flag.Bool("write-golden", false, "write the golden file of the present format, if there is none")

// A file of format 1 always decodes to the same state.
func TestGolden(t *testing.T) {
	const (
		path   = "testdata/format1.zst"
		digest = "fb99b93bdceb6bb00d61fe5d0f171569ccfb56542875cacafc078971f6fc1d1c"
	)
	want := golden(t)
	if _, err := os.Stat(path); *writeGolden && os.IsNotExist(err) {
		require.NoError(t, os.WriteFile(path, file(t, want), 0o600))
	}
	f, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, split(t, f), 5)
	sum := want.Digest()
	require.Equal(t, digest, hex.EncodeToString(sum[:]))
	requireRoundTrip(t, want, f)

	// The writer of format 1 still writes the same records. Another
	// version of zstd may compress them differently.
	require.True(t, bytes.Equal(streamed(t, f), streamed(t, file(t, want))))
}

// golden returns the small state with a node whose resources fill several frames.
func golden(t *testing.T) *state.State {
	t.Helper()
	b := state.NewBuilder(42, time.Unix(1_700_000_001, 0))
	for n := range small(t).All() {
		require.NoError(t, b.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()))
		for i := range n.Types() {
			typ := &n.Types()[i]
			require.NoError(t, b.Type(typ.URL(), typ.Version()))
			require.NoError(t, b.Resources(slices.Collect(typ.All())))
		}
	}
	require.NoError(t, b.Node("snapshot/default", "over frames", 42, time.Unix(1_700_000_001, 0)))
	require.NoError(t, b.Type("type.googleapis.com/T", "1"))
	for i, size := range []int{1 << 20, 1<<20 + 1, 3} {
		require.NoError(t, b.Resources([]*journal.Resource{{
			Name: fmt.Sprint("r", i), TypeURL: "type.googleapis.com/T", Version: fmt.Sprint(i), Value: bytes.Repeat([]byte{byte(i)}, size),
		}}))
	}
	return b.Build()
}
