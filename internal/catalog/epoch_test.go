package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
)

// epochObject returns the object of an epoch as another program may write it.
func epochObject(line string) []byte {
	line += "\n"
	return fmt.Appendf([]byte(line), "%08x\n", crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli)))
}

func TestEpochRoundTrip(t *testing.T) {
	b := backendtest.NewMemory()
	for _, e := range []catalog.Epoch{
		newEpoch(1, 0, 0), newEpoch(2, 1, 17), newEpoch(7, 3, 1<<63), newEpoch(12345678901, 2, 1),
		{Number: 9, StoreID: "s", Token: "t"},
		{Number: 10, StoreID: "s", Token: "t", Host: "ж\n\"\u2028"},
	} {
		require.NoError(t, catalog.Claim(t.Context(), b, e))
		got, err := catalog.ReadEpoch(t.Context(), b, e.Number)
		require.NoError(t, err)
		e.Format = 1
		require.Equal(t, e, got)
	}
	require.Equal(t, "epochs/0000000007", catalog.EpochKey(7))
	_, err := catalog.ReadEpoch(t.Context(), b, 3)
	require.ErrorIs(t, err, backends.ErrNotFound)
}

// An epoch of format 1, as the first release wrote it, stays readable forever.
func TestEpochGolden(t *testing.T) {
	const golden = `{"format":1,"epoch":2,"parent":1,"parent_token":"token-1","sequence":17,"store_id":"5707e1d0","token":"token-2","host":"edge-1","claimed":"2026-03-01T12:00:00.002Z"}
675e30d5
`
	b := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(2, 1, 17)))
	require.Equal(t, golden, string(get(t, b, catalog.EpochKey(2))))
}

// An epoch with a changed byte, or cut anywhere, is corrupt.
func TestEpochEveryByte(t *testing.T) {
	b := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(3, 2, 17)))
	good := get(t, b, catalog.EpochKey(3))
	read := func(content []byte) error {
		m := backendtest.NewMemory()
		put(t, m, catalog.EpochKey(3), content)
		_, err := catalog.ReadEpoch(t.Context(), m, 3)
		_, listErr := catalog.List(t.Context(), m)
		require.Equal(t, err == nil, listErr == nil, "a listing does not guess")
		return err
	}
	require.NoError(t, read(good))
	for i := range good {
		require.ErrorIs(t, read(good[:i]), event.ErrCorrupt, "cut at %d", i)
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			require.ErrorIs(t, read(bad), event.ErrCorrupt, "byte %d, bit %d", i, bit)
		}
	}
	require.ErrorIs(t, read(append(bytes.Clone(good), '\n')), event.ErrCorrupt)
	require.ErrorIs(t, read(bytes.Repeat([]byte("x"), 1<<20)), event.ErrCorrupt)
}

func TestEpochRefuses(t *testing.T) {
	for _, r := range []struct {
		name, line string
		want       error
	}{
		{"newer format", `{"format":2,"epoch":3,"anything":[1]}`, event.ErrVersion},
		{"another number", `{"format":1,"epoch":4,"store_id":"s","token":"t"}`, event.ErrCorrupt},
		{"its own parent", `{"format":1,"epoch":3,"parent":3,"store_id":"s","token":"t"}`, event.ErrCorrupt},
		{"a later parent", `{"format":1,"epoch":3,"parent":4,"store_id":"s","token":"t"}`, event.ErrCorrupt},
		{"no JSON", `epoch 3`, event.ErrCorrupt},
		{"a negative sequence", `{"format":1,"epoch":3,"sequence":-1}`, event.ErrCorrupt},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := backendtest.NewMemory()
			put(t, b, catalog.EpochKey(3), epochObject(r.line))
			_, err := catalog.ReadEpoch(t.Context(), b, 3)
			require.ErrorIs(t, err, r.want)
			require.ErrorContains(t, err, catalog.EpochKey(3))
			_, err = catalog.List(t.Context(), b)
			require.ErrorIs(t, err, r.want)
			err = catalog.Claim(t.Context(), b, newEpoch(3, 2, 1))
			require.ErrorIs(t, err, r.want)
			require.NotErrorIs(t, err, catalog.ErrFenced)
		})
	}
	// A later release may add fields, and keep the format.
	b := backendtest.NewMemory()
	put(t, b, catalog.EpochKey(3), epochObject(`{"format":1,"epoch":3,"store_id":"s","token":"t","later":true}`))
	_, err := catalog.ReadEpoch(t.Context(), b, 3)
	require.NoError(t, err)
}

func TestClaim(t *testing.T) {
	for name, driver := range drivers {
		t.Run(name, func(t *testing.T) {
			b := driver(t)
			mine := newEpoch(2, 1, 5)
			require.NoError(t, catalog.Claim(t.Context(), b, mine))
			require.NoError(t, catalog.Claim(t.Context(), b, mine), "again")
			other := mine
			other.Token, other.Sequence = "another", 4
			err := catalog.Claim(t.Context(), b, other)
			require.ErrorIs(t, err, catalog.ErrFenced)
			require.ErrorContains(t, err, "epoch 2 was claimed on edge-1 at 2026-03-01T12:00:00Z")
			got, err := catalog.ReadEpoch(t.Context(), b, 2)
			require.NoError(t, err)
			require.Equal(t, mine.Token, got.Token)
		})
	}
}

// A claim whose answer was lost is found to be ours, or not made, or leaves it
// open: never is it taken for another's, nor another's for ours.
func TestClaimAmbiguous(t *testing.T) {
	mine, theirs := newEpoch(2, 1, 5), newEpoch(2, 1, 5)
	theirs.Token = "another"
	for _, r := range []struct {
		name      string
		put, get  backendfault.Fault
		there     bool // another has it
		want      error
		ours      bool // after that
		mentioned string
	}{
		{"the answer is lost", backendfault.FailPresent, backendfault.None, false, nil, true, ""},
		{"it was not made", backendfault.FailAbsent, backendfault.None, false, backendfault.ErrInjected, false, "claim epoch 2"},
		{"the answer is lost, and it cannot be read", backendfault.FailPresent, backendfault.FailAbsent, false, backendfault.ErrInjected, true, "claim epoch 2"},
		{"the answer is lost, and reading breaks off", backendfault.FailPresent, backendfault.FailPresent, false, backendfault.ErrInjected, true, "claim epoch 2"},
		{"another has it, and it cannot be read", backendfault.None, backendfault.FailAbsent, true, backendfault.ErrInjected, false, "claim epoch 2"},
		{"another has it, and it was not made", backendfault.FailAbsent, backendfault.None, true, catalog.ErrFenced, false, ""},
	} {
		t.Run(r.name, func(t *testing.T) {
			m := backendtest.NewMemory()
			if r.there {
				require.NoError(t, catalog.Claim(t.Context(), m, theirs))
			}
			f := &backendfault.Backend{Backend: m, Fault: func(op backendfault.Op, _ string) backendfault.Fault {
				return map[backendfault.Op]backendfault.Fault{backendfault.OpPut: r.put, backendfault.OpGet: r.get}[op]
			}}
			err := catalog.Claim(t.Context(), f, mine)
			require.True(t, errors.Is(err, r.want), "%v", err)
			if r.mentioned != "" {
				require.ErrorContains(t, err, r.mentioned)
				require.NotErrorIs(t, err, catalog.ErrFenced)
			}
			// A second call finds out.
			err = catalog.Claim(t.Context(), m, mine)
			if r.there {
				require.ErrorIs(t, err, catalog.ErrFenced)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// framed is a backend that stores more than it was given, as one that does not decode the
// chunks of an upload.
type framed struct{ backends.Backend }

func (f framed) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return f.Backend.Put(ctx, key, strings.NewReader(fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(content), content)))
}

// A claim is read back: nothing is shipped to a backend that changes objects.
func TestClaimReadBack(t *testing.T) {
	err := catalog.Claim(t.Context(), framed{backendtest.NewMemory()}, newEpoch(1, 0, 0))
	require.ErrorIs(t, err, event.ErrCorrupt)
	require.NotErrorIs(t, err, catalog.ErrFenced)
	require.ErrorContains(t, err, "claim epoch 1: read epoch 1: epochs/0000000001 in memory:")
	require.ErrorContains(t, err, "what was just written cannot be read back")
}

// Of many concurrent claims of an epoch one succeeds, and all others return whose it
// is, also if answers are lost and the claims are repeated.
func TestClaimRace(t *testing.T) {
	const claimants = 16
	for name, driver := range drivers {
		for _, lossy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", lossy ", lossy), func(t *testing.T) {
				b := driver(t)
				for round := uint64(1); round <= 10; round++ {
					var winner atomic.Int64
					backend := b
					if lossy {
						backend = &backendfault.Backend{Backend: b, Fault: func(backendfault.Op, string) backendfault.Fault {
							return []backendfault.Fault{backendfault.None, backendfault.FailAbsent, backendfault.FailPresent}[rand.IntN(3)]
						}}
					}
					var winners atomic.Int32
					var wg sync.WaitGroup
					begin := make(chan struct{})
					for i := range claimants {
						e := newEpoch(round, round-1, 5)
						e.Token = fmt.Sprint("claimant-", i)
						wg.Add(1)
						go func() {
							defer wg.Done()
							<-begin
							for {
								won, err := claimed(context.Background(), backend, e)
								if err != nil {
									continue // open: ask again
								}
								if won {
									winners.Add(1)
									winner.Store(int64(i))
								}
								return
							}
						}()
					}
					close(begin)
					wg.Wait()
					require.EqualValues(t, 1, winners.Load())
					got, err := catalog.ReadEpoch(t.Context(), b, round)
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint("claimant-", winner.Load()), got.Token)
				}
			})
		}
	}
}

// A claim must continue the newest epoch of the listing.
func TestRemoteClaim(t *testing.T) {
	set := func(epochs ...catalog.Epoch) backends.Backend {
		b := backendtest.NewMemory()
		for _, e := range epochs {
			require.NoError(t, catalog.Claim(t.Context(), b, e))
		}
		return b
	}
	with := func(e catalog.Epoch, change func(*catalog.Epoch)) catalog.Epoch { change(&e); return e }
	one, two := newEpoch(1, 0, 0), newEpoch(2, 1, 10)
	for _, r := range []struct {
		name  string
		there []catalog.Epoch
		claim catalog.Epoch
		want  error
	}{
		{"the first", nil, one, nil},
		{"the next", []catalog.Epoch{one}, two, nil},
		{"ours already", []catalog.Epoch{one, two}, two, nil},
		{"ours already, and superseded since", []catalog.Epoch{one, two, newEpoch(3, 2, 20)}, two, catalog.ErrFenced},
		{"taken", []catalog.Epoch{one, with(two, func(e *catalog.Epoch) { e.Token = "another" })}, two, catalog.ErrFenced},
		{"the parent is another's", []catalog.Epoch{with(one, func(e *catalog.Epoch) { e.Token = "another" })}, two, catalog.ErrFenced},
		{"the parent is not the newest", []catalog.Epoch{one, two}, newEpoch(3, 1, 10), catalog.ErrFenced},
		{"another store", []catalog.Epoch{with(one, func(e *catalog.Epoch) { e.StoreID = "another" })}, two, catalog.ErrForeign},
		{"a backend that has lost something", []catalog.Epoch{one}, newEpoch(5, 4, 50), nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := set(r.there...)
			remote := list(t, b)
			before := len(remote.Numbers)
			err := remote.Claim(t.Context(), b, r.claim)
			if r.want != nil {
				require.ErrorIs(t, err, r.want)
				require.Len(t, remote.Numbers, before)
				require.Len(t, list(t, b).Numbers, before, "nothing was written")
				return
			}
			require.NoError(t, err)
			newest, ok := remote.Newest()
			require.True(t, ok)
			require.Equal(t, r.claim.Token, newest.Token)
			require.Equal(t, r.claim.Number+1, remote.Next())
			require.Equal(t, r.claim.Number+1, list(t, b).Next())
		})
	}
	t.Run("taken since it was listed", func(t *testing.T) {
		b := set(one)
		remote := list(t, b)
		other := two
		other.Token = "another"
		require.NoError(t, catalog.Claim(t.Context(), b, other))
		require.ErrorIs(t, remote.Claim(t.Context(), b, two), catalog.ErrFenced)
	})
	t.Run("names the stores", func(t *testing.T) {
		b := set(with(one, func(e *catalog.Epoch) { e.StoreID = "theirs" }))
		err := list(t, b).Claim(t.Context(), b, two)
		for _, part := range []string{"memory:", "theirs", storeID, "prefix of its own"} {
			require.ErrorContains(t, err, part)
		}
		require.False(t, strings.Contains(err.Error(), "\n"))
	})
}
