package event_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/event/eventpb"
	"github.com/xdswal/xdswal/journal"
)

// FuzzUnmarshal decodes bytes as a record, and as the body of a record whose
// header is correct, and compares the latter with the generated code.
func FuzzUnmarshal(f *testing.F) {
	whole := record(f, sample())
	f.Add(whole)
	f.Add(whole[event.MinRecordSize:])
	f.Add([]byte{})
	f.Add(append(whole[event.MinRecordSize:len(whole):len(whole)], 0x38, 0x01, 0x31, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := event.Unmarshal(data); err != nil && !errors.Is(err, event.ErrCorrupt) && !errors.Is(err, event.ErrVersion) {
			t.Fatalf("error without identity: %v", err)
		}
		sealed := append(whole[:event.MinRecordSize:event.MinRecordSize], data...)
		event.Seal(sealed, 42, time.Unix(0, 7))
		got, err := event.Unmarshal(sealed)
		if err != nil {
			require.ErrorIs(t, err, event.ErrCorrupt)
			return
		}
		require.EqualValues(t, 42, got.Sequence)
		var m eventpb.Event
		if proto.Unmarshal(sealed, &m) != nil {
			return // text that is not UTF-8
		}
		if m.GetSequence() != 42 || m.GetTimeUnixNano() != 7 {
			return // the body repeats fields of the header
		}
		want := fromProto(&m)
		// protobuf merges a repeated TTL, and limits its range.
		for _, ev := range []*journal.Event{want, got} {
			for _, tc := range ev.Types {
				for _, r := range tc.Upserts {
					if r.TTL != nil {
						r.TTL = new(time.Duration)
					}
				}
			}
		}
		requireEqual(t, want, got)
		if _, err := event.Marshal(got); err != nil {
			t.Fatalf("the decoded event cannot be encoded: %v", err)
		}
	})
}
