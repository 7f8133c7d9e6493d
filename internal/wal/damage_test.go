package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

const pageSize = 4096

// specimen is a journal of one small segment, in a directory of its own, whose
// bytes tests damage in place.
type specimen struct {
	dir, path string
	whole     []byte
	used      int // bytes of the pages in use
	truth     *book
}

// newSpecimen makes a segment of a few dozen records in several transactions:
// on several leaves below a branch, one of them over many pages, with a list
// of free pages.
func newSpecimen(t testing.TB) *specimen {
	t.Helper()
	s := &specimen{dir: fastDir(t), truth: newBook(1)}
	j := open(t, s.dir, wal.Options{SegmentBytes: 2 * minSegment})
	for i := range 30 {
		size := 300 + 20*i
		if i == 12 {
			size = 9000
		}
		s.truth.fill(t, j, 1, size)
	}
	require.NoError(t, j.Close())
	names := segments(t, s.dir)
	require.Len(t, names, 1)
	s.path = filepath.Join(s.dir, names[0])
	var err error
	s.whole, err = os.ReadFile(s.path)
	require.NoError(t, err)
	require.Equal(t, pageSize, int(binary.LittleEndian.Uint32(s.whole[24:])))
	for id := range 2 {
		s.used = max(s.used, pageSize*int(binary.LittleEndian.Uint64(s.whole[id*pageSize+16+40:])))
	}
	require.Less(t, s.used, len(s.whole))
	require.Greater(t, s.used, 8*pageSize)
	return s
}

func (s *specimen) write(t testing.TB, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.path, b, 0o600))
}

// read opens the damaged journal for reading and requires an error of a known
// identity, which it returns, or the whole truth.
func (s *specimen) read(t testing.TB, what string) error {
	t.Helper()
	j, err := wal.Open(s.dir, wal.Options{ReadOnly: true})
	require.NoError(t, err, what)
	defer j.Close()
	last := journal.Sequence(0)
	err = j.Range(t.Context(), 1, 0, func(ev *journal.Event) error {
		last++
		if ev.Sequence != last || ev.Node != s.truth.ids[last] {
			return fmt.Errorf("event %d of %q in place of %d", ev.Sequence, ev.Node, last)
		}
		return intact(ev)
	})
	if err == nil {
		require.Equal(t, s.truth.last(), last, "%s: silently fewer events", what)
		return nil
	}
	require.True(t, isIdentity(err), "%s: %v", what, err)
	require.ErrorContains(t, err, s.dir, what)
	return err
}

// goOn opens the damaged journal for appending. If that is refused, reading
// must have been refused too. Otherwise whatever is appended must be there
// next time: damage that is passed over today must not hurt tomorrow.
func (s *specimen) goOn(t testing.TB, readErr error, what string) {
	t.Helper()
	j, err := wal.Open(s.dir, wal.Options{SegmentBytes: 4 * minSegment})
	if err != nil {
		require.Error(t, readErr, what)
		require.True(t, isIdentity(err), "%s: %v", what, err)
		return
	}
	require.NoError(t, readErr, "%s: opened for appending what cannot be read", what)
	defer j.Close()
	b := newBook(1)
	for seq, id := range s.truth.ids {
		b.ack(seq, id)
	}
	require.NoError(t, b.check(j, 1), what)
	for i := range 6 {
		require.NoError(t, b.append(j, fmt.Sprintf("more-%d", i), 1500), what)
	}
	require.NoError(t, b.check(j, 1), what)
	require.NoError(t, j.Close(), what)
	j, err = wal.Open(s.dir, wal.Options{ReadOnly: true})
	require.NoError(t, err, what)
	require.NoError(t, b.check(j, 1), what)
	require.NoError(t, os.Remove(filepath.Join(s.dir, "LOCK")))
}

var masks = []byte{0x01, 0xff, 0x80, 0x02, 0x40, 0x04, 0x20, 0x08, 0x10}

// No flipped byte of a page in use passes unseen, unless nothing depends on it.
func TestFlips(t *testing.T) {
	s := newSpecimen(t)
	step := 5
	if raceEnabled {
		step = 43
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	refused := 0
	for at := 0; at < s.used; at += step {
		mask := masks[at/step%len(masks)]
		_, err := f.WriteAt([]byte{s.whole[at] ^ mask}, int64(at))
		require.NoError(t, err)
		if s.read(t, fmt.Sprintf("page %d, byte %d xor %02x", at/pageSize, at%pageSize, mask)) != nil {
			refused++
		}
		_, err = f.WriteAt(s.whole[at:at+1], int64(at))
		require.NoError(t, err)
	}
	require.Greater(t, refused, s.used/step/4)
	s.truth.verifyClosed(t, s.dir, 1)
}

// structure returns the offsets of the bytes that bbolt steers by: page
// headers and elements, all of its free, branch and bucket pages' content, and
// the meta pages.
func (s *specimen) structure() []int {
	le := binary.LittleEndian
	var offsets []int
	span := func(from, n int) {
		for i := range n {
			offsets = append(offsets, from+i)
		}
	}
	for at := 0; at < s.used; at += pageSize {
		page := s.whole[at:]
		flags, count, overflow := le.Uint16(page[8:]), int(le.Uint16(page[10:])), int(le.Uint32(page[12:]))
		switch {
		case le.Uint64(page) != uint64(at/pageSize):
			continue // amid a record of many pages, or never written
		case flags == 0x04:
			span(at, 16+64)
		case flags == 0x10:
			span(at, 16+8*(count+2))
		case flags == 0x01:
			span(at, 16+count*(16+8))
		case flags == 0x02 && count == 2:
			span(at, 400) // the list of buckets, as one of its kind
		default:
			span(at, 16+16*count+8)
		}
		at += overflow * pageSize
	}
	return offsets
}

// A journal that opens for appending in spite of a flipped byte is as good as
// one that was never damaged.
func TestFlipsThenAppends(t *testing.T) {
	s := newSpecimen(t)
	offsets := s.structure()
	step := 7
	if raceEnabled {
		step = 61
	}
	opened := 0
	for i := 0; i < len(offsets); i += step {
		at, mask := offsets[i], masks[i/step%len(masks)]
		damaged := append([]byte(nil), s.whole...)
		damaged[at] ^= mask
		s.write(t, damaged)
		what := fmt.Sprintf("page %d, byte %d xor %02x", at/pageSize, at%pageSize, mask)
		err := s.read(t, what)
		s.goOn(t, err, what)
		if err == nil {
			opened++
		}
		for _, name := range segments(t, s.dir)[1:] {
			require.NoError(t, os.Remove(filepath.Join(s.dir, name)))
		}
	}
	t.Logf("%d of %d opened", opened, len(offsets)/step)
	s.write(t, s.whole)
	s.truth.verifyClosed(t, s.dir, 1)
}

// No cut passes unseen, unless nothing was cut off but zeros.
func TestCuts(t *testing.T) {
	s := newSpecimen(t)
	step := 509
	if raceEnabled {
		step = 3001
	}
	lengths := []int{0, 1, 15, 16, 79, 80, pageSize - 1, pageSize, pageSize + 1, 2 * pageSize, s.used - 1, s.used, s.used + 1, len(s.whole) - 1}
	for n := step; n < len(s.whole); n += step {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		s.write(t, s.whole[:n])
		what := fmt.Sprintf("cut to %d of %d bytes", n, s.used)
		err := s.read(t, what)
		require.Equal(t, n < s.used, err != nil, what)
		if err != nil {
			require.True(t, errors.Is(err, wal.ErrCorrupt), what)
		}
		s.goOn(t, err, what)
		for _, name := range segments(t, s.dir)[1:] {
			require.NoError(t, os.Remove(filepath.Join(s.dir, name)))
		}
	}
	s.write(t, s.whole)
	s.truth.verifyClosed(t, s.dir, 1)
}

// A segment of a newer format is ErrVersion, another file ErrCorrupt.
func TestForeignSegments(t *testing.T) {
	for _, c := range []struct {
		name string
		old  string
		new  string
		want error
	}{
		{"newer format", "format\x01", "format\x02", wal.ErrVersion},
		{"other magic", "xdswal journal", "xdswal journey", wal.ErrCorrupt},
		{"other bucket", "records", "recordz", wal.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpecimen(t)
			b := append([]byte(nil), s.whole...)
			n := 0
			for at := 0; at+len(c.old) <= len(b); at++ {
				if string(b[at:at+len(c.old)]) == c.old {
					copy(b[at:], c.new)
					n++
				}
			}
			require.Positive(t, n)
			s.write(t, b)
			require.ErrorIs(t, s.read(t, c.name), c.want)
			_, err := wal.Open(s.dir, wal.Options{})
			require.ErrorIs(t, err, c.want)
			requirePlace(t, err, s.path)
		})
	}
}

// A segment that is missing is a gap, one that is damaged spoils what follows
// it and nothing before.
func TestDamagedChain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{})
	b := newBook(1)
	for len(segments(t, dir)) < 4 {
		b.fill(t, j, 5, 3000)
	}
	require.NoError(t, j.Close())
	names := segments(t, dir)
	second, err := event.ParseSequence(names[1][:20])
	require.NoError(t, err)
	third, err := event.ParseSequence(names[2][:20])
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
		want   error
	}{
		{"removed", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, wal.ErrGap},
		{"empty", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) }, wal.ErrCorrupt},
		{"text", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, make([]byte, minSegment), 0o600))
		}, wal.ErrCorrupt},
		{"another segment", func(t *testing.T, path string) {
			other, err := os.ReadFile(filepath.Join(filepath.Dir(path), names[0]))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, other, 0o600))
		}, wal.ErrCorrupt},
	} {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, read-only %v", c.name, readOnly), func(t *testing.T) {
				crashed := copyDir(t, dir)
				c.damage(t, filepath.Join(crashed, names[1]))
				j := open(t, crashed, wal.Options{ReadOnly: readOnly})
				events, err := collect(j, 1, 0)
				require.ErrorIs(t, err, c.want)
				require.Len(t, events, int(second-1), "what is before it")
				_, err = collect(j, 1, second-1)
				require.NoError(t, err)
				require.NoError(t, b.check(j, third), "what is behind it")
				require.NoError(t, j.Close())
				b2 := newBook(third)
				for seq := third; seq <= b.last(); seq++ {
					b2.ack(seq, b.ids[seq])
				}
				b2.verifyClosed(t, crashed, third)
			})
		}
	}
}
