package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/s3test"
)

const (
	// lossRounds is how often TestMachineLoss loses the machine.
	lossRounds      = 20
	shortLossRounds = 3
	// lossRate is how many updates are sent in a second, by lossWriters, each of
	// which waits for its answers.
	lossRate    = 500
	lossWriters = 16
	lossNodes   = 10
	// shipInterval is the daemon's default.
	shipInterval = time.Second
	// slowUpload is more than an upload takes here, however busy the machine.
	slowUpload = 4 * time.Second
)

// TestMachineLoss kills the daemon under 500 updates a second and deletes its
// data directory, again and again. A new machine restores from S3 what is
// exactly a prefix of what was acknowledged; the test tells how much later the
// rest had been acknowledged.
func TestMachineLoss(t *testing.T) {
	rounds := lossRounds
	if testing.Short() {
		rounds = shortLossRounds
	}
	server := s3test.Start(t)
	server.Setenv(t)
	l := &machineLoss{
		t: t, held: map[string]acknowledged{},
		d: newDaemon(t, "--backend", server.URL("fleet"), "--compact-interval", "2s", "--keep-snapshots", "2", "--keep-for", "5s", "--log-level", "warn"),
	}
	var losses []time.Duration
	var updates []int
	l.d.start()
	for range rounds {
		loss, n := l.round()
		losses, updates = append(losses, loss), append(updates, n)
		require.Less(t, loss, shipInterval+slowUpload)
	}
	l.d.terminate()
	slices.Sort(losses)
	slices.Sort(updates)
	at := func(q float64) int { return int(q * float64(rounds-1)) }
	t.Logf("%d machines lost under %d updates a second, shipping every %v: lost acknowledgements reach back %v at the least, %v at the median, %v at p90, %v at most; that is %d updates at the median, %d at most; %d updates acknowledged in all",
		rounds, lossRate, shipInterval, losses[0].Round(time.Millisecond), losses[at(.5)].Round(time.Millisecond), losses[at(.9)].Round(time.Millisecond), losses[rounds-1].Round(time.Millisecond),
		updates[at(.5)], updates[rounds-1], l.total)
}

type machineLoss struct {
	t     *testing.T
	d     *daemon
	ids   atomic.Int64
	total int
	// held is what the store held after the last restart: the newest update of
	// each node.
	held map[string]acknowledged
}

// acknowledged is an update with its answer.
type acknowledged struct {
	node, id string
	seq      uint64 // 0 if no answer came
	at       time.Time
}

// round updates for a time that falls anywhere between two shipments, kills the
// daemon, and brings it back on a new machine. It returns for how long updates
// had been acknowledged that are lost, and how many.
func (l *machineLoss) round() (time.Duration, int) {
	l.t.Helper()
	sent := l.update(shipInterval + time.Duration(l.ids.Load()*7919%1000)*time.Millisecond)
	killed := time.Now()
	l.d.kill()
	updates := sent()
	l.d.loseMachine()
	l.d.dir = filepath.Join(l.t.TempDir(), "data")
	l.d.start()
	s := l.d.status()
	require.Empty(l.t, s.Restored.Skipped)

	// What the store should hold: of each node the last update up to the
	// sequence that was restored. One without an answer may be among them.
	unanswered := map[string]bool{}
	seqs := map[uint64]bool{}
	lost, oldest := 0, killed
	for _, u := range updates {
		switch {
		case u.seq == 0:
			unanswered[u.node+" "+u.id] = true
		case u.seq > s.Seq:
			lost++
			if u.at.Before(oldest) {
				oldest = u.at
			}
		default:
			seqs[u.seq] = true
			if u.seq > l.held[u.node].seq {
				l.held[u.node] = u
			}
		}
	}
	// Sequences that nobody was told of, up to the last.
	first := slices.MinFunc(updates, func(a, b acknowledged) int { return int(int64(orMax(a.seq) - orMax(b.seq))) }).seq
	untold := 0
	for seq := first; seq <= s.Seq; seq++ {
		if !seqs[seq] {
			untold++
		}
	}
	require.LessOrEqual(l.t, untold, len(unanswered), "the store holds updates that were not sent")
	l.compare(s, unanswered)
	l.total += len(seqs) + lost
	return killed.Sub(oldest), lost
}

func orMax(seq uint64) uint64 {
	if seq == 0 {
		return 1 << 62
	}
	return seq
}

// compare holds what the daemon shows against what it should.
func (l *machineLoss) compare(s status, unanswered map[string]bool) {
	l.t.Helper()
	for _, info := range l.d.nodes() {
		var doc struct{ Resources []object }
		l.d.must(http.MethodGet, nodePath(info.Node, "snapshot"), nil, &doc)
		require.Len(l.t, doc.Resources, 1)
		id := doc.Resources[0]["alt_stat_name"].(string)
		want := l.held[info.Node]
		switch {
		case id == want.id:
			require.Equal(l.t, want.seq, info.Seq)
		case unanswered[info.Node+" "+id]:
			require.Greater(l.t, info.Seq, want.seq)
			l.held[info.Node] = acknowledged{node: info.Node, id: id, seq: info.Seq}
		default:
			require.Failf(l.t, "a node holds what it should not", "%s holds %s of %d, want %s of %d; restored %d", info.Node, id, info.Seq, want.id, want.seq, s.Seq)
		}
	}
	require.Len(l.t, l.d.nodes(), len(l.held))
}

// update updates at the rate for a time, and goes on until the daemon is gone:
// the function that it returns waits for that and tells what was sent.
func (l *machineLoss) update(d time.Duration) func() []acknowledged {
	l.t.Helper()
	var mu sync.Mutex
	var out []acknowledged
	var wg sync.WaitGroup
	begun := time.Now()
	for w := range lossWriters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			tick := time.NewTicker(time.Second * lossWriters / lossRate)
			defer tick.Stop()
			for range tick.C {
				u := acknowledged{node: fmt.Sprint("n", w%lossNodes), id: strconv.FormatInt(l.ids.Add(1), 10)}
				body := object{"version": u.id, "resources": []object{newResource(resourcev3.ClusterType, "c", u.id)}}
				var answer struct{ Seq uint64 }
				err := l.d.call(context.Background(), http.MethodPut, nodePath(u.node, "snapshot"), body, &answer)
				u.seq, u.at = answer.Seq, time.Now()
				mu.Lock()
				out = append(out, u)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}()
	}
	<-time.After(time.Until(begun.Add(d)))
	return func() []acknowledged {
		wg.Wait()
		require.Greater(l.t, float64(len(out)), lossRate*d.Seconds()/4, "the machine is too slow for the rate")
		return out
	}
}
