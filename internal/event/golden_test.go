package event_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/event/eventpb"
)

var writeGolden = flag.Bool("write-golden", false, "write golden files that are missing; those that exist never change")

// A record of format 1, as the first release wrote it, always decodes to the same
// event.
func TestGolden(t *testing.T) {
	const path = "testdata/record-format1.binpb"
	golden, err := os.ReadFile(path)
	if *writeGolden && errors.Is(err, fs.ErrNotExist) {
		golden = record(t, sample())
		err = os.WriteFile(path, golden, 0o644)
	}
	require.NoError(t, err)
	got, err := event.Unmarshal(golden)
	require.NoError(t, err)
	requireEqual(t, sample(), got)

	var m eventpb.Event
	require.NoError(t, proto.Unmarshal(golden, &m))
	requireEqual(t, sample(), fromProto(&m))

	// Format 1 is still written in the same way.
	require.Equal(t, golden, record(t, sample()))
}
