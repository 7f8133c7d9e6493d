package boltpages_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal/internal/boltpages"
)

// fastDir is a temporary directory in memory where the system has one, for
// tests that write much and of which none is about durability.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xdswal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// pair is a key with its value.
type pair struct{ key, value string }

// content is what a file holds.
type content struct {
	sequence map[string]uint64
	pairs    map[string][]pair
}

// read reads a file with boltpages, and checks its freelist.
func read(path string) (content, error) {
	c := content{map[string]uint64{}, map[string][]pair{}}
	f, err := boltpages.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	for _, b := range f.Buckets() {
		c.sequence[b.Name] = b.Sequence
		err := f.Walk(b, func(key, value []byte) error {
			c.pairs[b.Name] = append(c.pairs[b.Name], pair{string(key), string(value)})
			return nil
		})
		if err != nil {
			return c, err
		}
	}
	return c, f.CheckFreelist()
}

// readBolt reads a file with bbolt.
func readBolt(t testing.TB, path string) content {
	t.Helper()
	c := content{map[string]uint64{}, map[string][]pair{}}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			c.sequence[string(name)] = b.Sequence()
			return b.ForEach(func(key, value []byte) error {
				c.pairs[string(name)] = append(c.pairs[string(name)], pair{string(key), string(value)})
				return nil
			})
		})
	}))
	return c
}

// randomBolt writes a file with bbolt, in a few transactions of puts and
// deletes.
func randomBolt(t testing.TB, path string, r *rand.Rand) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize:       []int{1024, 4096, 16384}[r.IntN(3)],
		NoFreelistSync: r.IntN(4) == 0,
		FreelistType:   []bolt.FreelistType{bolt.FreelistArrayType, bolt.FreelistMapType}[r.IntN(2)],
		NoSync:         true,
	})
	require.NoError(t, err)
	db.AllocSize = 1 << 16
	fill := []float64{0.1, 0.5, 1}[r.IntN(3)]
	keys, values := 1+r.IntN(1500), 1+r.IntN(600)
	for range 1 + r.IntN(6) {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error {
			for i := range 1 + r.IntN(4) {
				b, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "bucket-%d", i))
				if err != nil {
					return err
				}
				b.FillPercent = fill
				if err := b.SetSequence(r.Uint64()); err != nil {
					return err
				}
				for range r.IntN(keys) {
					key := fmt.Appendf(nil, "%0*d", 1+r.IntN(40), r.IntN(keys))
					if r.IntN(3) == 0 {
						err = b.Delete(key)
					} else {
						size := r.IntN(values)
						if r.IntN(50) == 0 {
							size = r.IntN(40000) // takes overflow pages
						}
						err = b.Put(key, []byte(strings.Repeat("v", size)))
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		}))
	}
	require.NoError(t, db.Close())
}

func TestAgreesWithBolt(t *testing.T) {
	files := 150
	if raceEnabled {
		files = 30
	}
	for seed := range uint64(files) {
		path := filepath.Join(fastDir(t), "db")
		randomBolt(t, path, rand.New(rand.NewPCG(seed, 1)))
		got, err := read(path)
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, readBolt(t, path), got, "seed %d", seed)
	}
}

// small writes a small file of every kind of page, with page size 1024.
func small(t testing.TB, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024, NoSync: true})
	require.NoError(t, err)
	for tx := range 6 {
		require.NoError(t, db.Update(func(btx *bolt.Tx) error {
			inline, err := btx.CreateBucketIfNotExists([]byte("inline"))
			if err != nil {
				return err
			}
			if err := inline.Put([]byte("k"), []byte("v")); err != nil {
				return err
			}
			b, err := btx.CreateBucketIfNotExists([]byte("pages"))
			if err != nil {
				return err
			}
			for i := range 12 {
				size := 100
				if i == 5 && tx == 3 {
					size = 2500
				}
				if err := b.Put(fmt.Appendf(nil, "%03d", 12*tx+i), make([]byte, size)); err != nil {
					return err
				}
			}
			return b.SetSequence(uint64(tx))
		}))
	}
	require.NoError(t, db.Close())
}

// usable checks that bbolt can use a file that passed: it reads what
// was read, and what it writes is a file that passes.
func usable(t testing.TB, path string, want content, what string) {
	t.Helper()
	require.Equal(t, want, readBolt(t, path), what)
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	require.NoError(t, err, what)
	key := []byte("\xff\xff\xff\xff")
	for i := range 4 {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("pages"))
			if err != nil {
				return err
			}
			return b.Put(append(key, byte('0'+i)), make([]byte, 700))
		}), what)
	}
	require.NoError(t, db.Close(), what)
	got, err := read(path)
	require.NoError(t, err, what)
	n := len(want.pairs["pages"])
	require.Len(t, got.pairs["pages"], n+4, what)
	require.Equal(t, append([]pair{}, want.pairs["pages"]...), got.pairs["pages"][:n:n], what)
	require.Equal(t, want.pairs["inline"], got.pairs["inline"], what)
}

// Every flipped byte gives an error or a file that bbolt reads as this package
// does, and can write to. bbolt's leaves have no checksums, so a pair may differ
// from what was written, and the last ones may be missing: the journal's records
// have checksums, and its buckets tell the last one.
func TestFlips(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "db")
	small(t, path)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	step := 3
	if raceEnabled {
		step = 13
	}
	damaged := filepath.Join(dir, "damaged")
	masks := []byte{0x01, 0xff, 0x02, 0x80, 0x04, 0x10}
	errs := 0
	for at := 0; at < len(whole); at += step {
		if at%1024 > 16+16*12+40 && at%5 != 0 {
			continue // values: nothing depends on them
		}
		mask := masks[at/step%len(masks)]
		whole[at] ^= mask
		require.NoError(t, os.WriteFile(damaged, whole, 0o600))
		whole[at] ^= mask
		what := fmt.Sprintf("byte %d of page %d xor %02x", at%1024, at/1024, mask)
		got, err := read(damaged)
		if err != nil {
			errs++
			require.True(t, errors.Is(err, event.ErrCorrupt) || errors.Is(err, event.ErrVersion), "%s: %v", what, err)
			continue
		}
		usable(t, damaged, got, what)
	}
	require.Greater(t, errs, 100)
}

func TestCuts(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "db")
	small(t, path)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	truth, err := read(path)
	require.NoError(t, err)
	cut := filepath.Join(dir, "cut")
	for n := 0; n < len(whole); n += 61 {
		require.NoError(t, os.WriteFile(cut, whole[:n], 0o600))
		got, err := read(cut)
		if err == nil {
			usable(t, cut, truth, fmt.Sprintf("cut to %d", n))
			require.Equal(t, truth, got)
			continue
		}
		require.ErrorIs(t, err, event.ErrCorrupt)
	}
}

// page is one page of the file that small writes.
func page(file []byte, id uint64) []byte { return file[id*1024 : (id+1)*1024] }

// What would make bbolt fault, loop, or overwrite what it holds.
func TestNamedDamage(t *testing.T) {
	const branch, leaf, freelist = 0x01, 0x02, 0x10
	le := binary.LittleEndian
	// newest returns the newest meta's 64 bytes.
	newest := func(file []byte) []byte {
		a, b := page(file, 0)[16:80], page(file, 1)[16:80]
		if le.Uint64(b[48:]) > le.Uint64(a[48:]) {
			return b
		}
		return a
	}
	list := func(file []byte) []byte { return page(file, le.Uint64(newest(file)[32:])) }
	root := func(file []byte) []byte { return page(file, le.Uint64(newest(file)[16:])) }
	// tree is the root page of bucket "pages".
	tree := func(file []byte) []byte {
		r := root(file)
		second := r[16+16:]
		pos, ksize := le.Uint32(second[4:]), le.Uint32(second[8:])
		return page(file, le.Uint64(second[pos+ksize:]))
	}
	for _, c := range []struct {
		name   string
		damage func(file []byte)
		want   string
	}{
		{"branch that points to itself", func(f []byte) { p := tree(f); le.PutUint64(p[16+8:], le.Uint64(p)) }, "in use twice"},
		{"branch that points twice to a leaf", func(f []byte) { p := tree(f); copy(p[32+8:40+8], p[16+8:32]) }, "in use twice"},
		{"branch that points to a meta page", func(f []byte) { le.PutUint64(tree(f)[16+8:], 1) }, "out of bounds"},
		{"branch without elements", func(f []byte) { le.PutUint16(tree(f)[10:], 0) }, "no elements"},
		{"branch with too many elements", func(f []byte) { le.PutUint16(tree(f)[10:], 0xffff) }, "more elements"},
		{"branch that is also a leaf", func(f []byte) { le.PutUint16(tree(f)[8:], branch|leaf) }, "page header"},
		{"branch key that is too small", func(f []byte) { p := tree(f); k := 32 + le.Uint32(p[32:]); p[k] = 0 }, "out of order"},
		{"branch key that is a little too small", func(f []byte) { p := tree(f); k := 32 + le.Uint32(p[32:]); p[k+2]-- }, "out of order"},
		{"branch key that is too large", func(f []byte) { p := tree(f); k := 32 + le.Uint32(p[32:]); p[k] = 0xff }, "out of order"},
		{"branch key outside of the page", func(f []byte) { le.PutUint32(tree(f)[16:], 5000) }, "exceeds the page"},
		{"leaf with another's overflow", func(f []byte) { le.PutUint32(page(f, le.Uint64(tree(f)[16+8:]))[12:], 3) }, "in use twice"},
		{"leaf with the rest of the file", func(f []byte) { le.PutUint32(page(f, le.Uint64(tree(f)[16+8:]))[12:], 1<<31) }, "exceeds the file"},
		{"leaf that holds a bucket", func(f []byte) { page(f, le.Uint64(tree(f)[16+8:]))[16] = 1 }, "not a pair"},
		{"leaf without elements", func(f []byte) { le.PutUint16(page(f, le.Uint64(tree(f)[16+8:]))[10:], 0) }, "no elements"},
		{"freelist that names a page twice", func(f []byte) { p := list(f); copy(p[24:32], p[16:24]) }, "named twice"},
		{"freelist that names a page in use", func(f []byte) { le.PutUint64(list(f)[16:], le.Uint64(root(f))) }, "in use"},
		{"freelist that names itself", func(f []byte) { p := list(f); le.PutUint64(p[16:], le.Uint64(p)) }, "in use"},
		{"freelist that names a meta page", func(f []byte) { le.PutUint64(list(f)[16:], 0) }, "out of bounds"},
		{"freelist beyond the file", func(f []byte) { le.PutUint64(list(f)[16:], 1<<40) }, "out of bounds"},
		{"freelist that is too long", func(f []byte) { le.PutUint16(list(f)[10:], 0xfffe) }, "longer than its page"},
		{"freelist of another kind", func(f []byte) { le.PutUint16(list(f)[8:], freelist|leaf) }, "page header"},
		{"bucket that is a pair", func(f []byte) { root(f)[16] = 0 }, "not a bucket"},
		{"inline bucket that is a branch", func(f []byte) { p := root(f)[16:]; p[le.Uint32(p[4:])+le.Uint32(p[8:])+16+8] = branch }, "inline page"},
		{"older meta page", func(f []byte) { page(f, 0)[16+20]++ }, "checksum of the meta page"},
		{"newer meta page", func(f []byte) { page(f, 1)[16+20]++ }, "checksum of the meta page"},
		{"page size", func(f []byte) { le.PutUint32(page(f, 0)[16+8:], 3) }, "page size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			small(t, path)
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			require.EqualValues(t, branch, le.Uint16(tree(file)[8:]))
			require.GreaterOrEqual(t, le.Uint16(list(file)[10:]), uint16(2), "free pages")
			c.damage(file)
			require.NoError(t, os.WriteFile(path, file, 0o600))
			_, err = read(path)
			require.ErrorIs(t, err, event.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
		})
	}
}

// Values may be secret. Damage can make a key of a value, so no error contains a key.
func TestErrorsContainNoKeys(t *testing.T) {
	const secret = "secret"
	le := binary.LittleEndian
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024, NoSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("pages"))
		if err != nil {
			return err
		}
		return b.Put([]byte("key"), []byte(strings.Repeat(secret, 100)))
	}))
	require.NoError(t, db.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	errs := 0
	for id := range uint64(len(whole) / 1024) {
		file := append([]byte(nil), whole...)
		p := page(file, id)
		if le.Uint64(p) != id || le.Uint16(p[8:]) != 0x02 {
			continue
		}
		// The first entry of the leaf is a bucket, or a pair, with all that
		// follows as its key.
		key := p[16+le.Uint32(p[16+4:]):]
		le.PutUint32(p[16+8:], uint32(len(key)))
		le.PutUint32(p[16+12:], 0)
		p[16] ^= 1
		require.NoError(t, os.WriteFile(path, file, 0o600))
		if _, err := read(path); err != nil {
			errs++
			require.ErrorIs(t, err, event.ErrCorrupt)
			require.NotContains(t, err.Error(), secret)
		}
	}
	require.Positive(t, errs)
}

func TestWalkReturnsTheErrorOfFn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	small(t, path)
	f, err := boltpages.Open(path)
	require.NoError(t, err)
	defer f.Close()
	boom := errors.New("boom")
	calls := 0
	err = f.Walk(f.Buckets()[1], func(_, _ []byte) error { calls++; return boom })
	require.Equal(t, boom, err)
	require.Equal(t, 1, calls)
	require.ErrorIs(t, f.Walk(f.Buckets()[1], func(_, _ []byte) error { return nil }), event.ErrCorrupt, "a second walk")
}

func TestOpenMissing(t *testing.T) {
	_, err := boltpages.Open(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, event.ErrCorrupt)
}

// FuzzOpen damages a small file: it is read with a bound on what is yielded,
// and if it passes, bbolt can use it.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	small(f, path)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole, uint16(0), uint16(0), []byte{})
	f.Add(whole[:4096], uint16(0), uint16(0), []byte{})
	for id := range uint16(8) {
		f.Add(whole, id, uint16(8), []byte{0x02, 0, 1, 0})
	}
	f.Fuzz(func(t *testing.T, file []byte, id, offset uint16, patch []byte) {
		file = append([]byte(nil), file...)
		if at := int(id)*1024 + int(offset); at < len(file) {
			copy(file[at:], patch)
		}
		path := filepath.Join(fastDir(t), "db")
		require.NoError(t, os.WriteFile(path, file, 0o600))
		got, err := read(path)
		if err != nil {
			require.True(t, errors.Is(err, event.ErrCorrupt) || errors.Is(err, event.ErrVersion), "%v", err)
			return
		}
		pairs := 0
		for _, p := range got.pairs {
			pairs += len(p)
		}
		require.LessOrEqual(t, pairs, len(file)/16)
		if b, ok := got.sequence["pages"]; !ok || b > 1<<20 {
			return
		}
		require.Equal(t, got, readBolt(t, path))
	})
}
