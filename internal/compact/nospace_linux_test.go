package compact_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/journal"
)

// On a full volume a snapshot fails with that error and leaves nothing. Older
// snapshots stay, updates continue, and when there is room again the next attempt
// succeeds.
func TestVolumeFull(t *testing.T) {
	s := &store{t: t, dir: t.TempDir(), opt: never}
	require.NoError(t, durable.MkdirAll(s.snapshots()))
	if err := syscall.Mount("xdswal-test", s.snapshots(), "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small volume: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(s.snapshots(), 0)) })
	s.open()
	s.checkAtEnd()
	s.compactor.Start()
	s.appendNoise(4, 40<<10)
	require.EqualValues(t, 4, s.compact())

	ballast := filepath.Join(s.snapshots(), "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 600<<10), 0o600))
	s.appendNoise(4, 100<<10)
	before := files(t, s.snapshots())
	for range 2 {
		_, err := s.compactor.Compact(t.Context())
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, s.snapshots())
		require.ErrorIs(t, s.compactor.Status().Err, syscall.ENOSPC)
		require.EqualValues(t, 4, s.compactor.Status().Sequence)
		require.Equal(t, before, files(t, s.snapshots()))
		s.appendNoise(1, 10)
	}
	require.EqualValues(t, 1, s.first())
	require.EqualValues(t, 4, s.requireRestores().SnapshotSequence)

	require.NoError(t, os.Remove(ballast))
	require.EqualValues(t, 10, s.compact())
	require.NoError(t, s.compactor.Status().Err)
	require.Equal(t, []journal.Sequence{10, 4}, s.local())
	s.crash()
}

// appendNoise makes n events durable that do not compress.
func (s *store) appendNoise(n, payload int) {
	s.t.Helper()
	for range n {
		ev := s.event(0)
		r := ev.Types[0].Upserts[0]
		r.Name = fmt.Sprint("noise-", s.state.Load().Sequence())
		rng := rand.NewChaCha8([32]byte(bytes.Repeat([]byte{byte(s.state.Load().Sequence())}, 32)))
		r.Value = make([]byte, payload)
		_, err := rng.Read(r.Value)
		require.NoError(s.t, err)
		_, err = s.journal.Append(s.t.Context(), ev)
		require.NoError(s.t, err)
	}
}
