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
	// lossRounds is the number of lost machines in TestMachineLoss.
	lossRounds      = 20
	shortLossRounds = 3
	// lossRate is the number of updates in a second of all lossWriters. A writer waits
	// for each answer.
	lossRate    = 500
	lossWriters = 16
	lossNodes   = 10
	// shipInterval is the daemon's default.
	shipInterval = time.Second
	// slowUpload bounds the time of an upload on a busy machine.
	slowUpload = 4 * time.Second
)

// TestMachineLoss repeatedly kills the daemon during 500 updates a second and deletes its
// data directory. A new machine restores from S3 exactly a prefix of the returned updates.
// The test logs how long before the kill the lost updates had returned.
func TestMachineLoss(t *testing.T) {
	rounds := lossRounds
	if testing.Short() {
		rounds = shortLossRounds
	}
	server := s3test.Start(t)
	server.Setenv(t)
	l := &machineLoss{
		t: t, held: map[string]update{},
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
	t.Logf("%d machines lost during %.0f updates a second, shipping every %v: the oldest lost update returned before the kill: min %v, median %v, p90 %v, max %v; lost updates: median %d, max %d; returned updates in total: %d",
		rounds, float64(l.sent)/l.sending.Seconds(), shipInterval, losses[0].Round(time.Millisecond), losses[at(.5)].Round(time.Millisecond), losses[at(.9)].Round(time.Millisecond), losses[rounds-1].Round(time.Millisecond),
		updates[at(.5)], updates[rounds-1], l.total)
}

type machineLoss struct {
	t     *testing.T
	d     *daemon
	ids   atomic.Int64
	total int
	// sent is the number of updates sent while the daemon ran, sending that time. Their
	// ratio is logged and not tested: it depends on the machine.
	sent    int
	sending time.Duration
	// held is the newest update of each node after the last restart.
	held map[string]update
}

// update is an update with its answer.
type update struct {
	node, id string
	seq      uint64 // 0 without an answer
	at       time.Time
}

// round sends updates, kills the daemon at a random time between two shipments, and starts
// it on a new machine. It returns the time from the return of the oldest lost update to the
// kill, and the number of lost updates.
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

	// The store must contain the last update of each node up to the restored sequence.
	// Updates without an answer may be among them.
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
	// Sequences without an answer, up to the last.
	first := slices.MinFunc(updates, func(a, b update) int { return int(int64(orMax(a.seq) - orMax(b.seq))) }).seq
	unknown := 0
	for seq := first; seq <= s.Seq; seq++ {
		if !seqs[seq] {
			unknown++
		}
	}
	require.LessOrEqual(l.t, unknown, len(unanswered), "the store contains updates that were not sent")
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

// compare compares the nodes of the daemon with held.
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
			l.held[info.Node] = update{node: info.Node, id: id, seq: info.Seq}
		default:
			require.Failf(l.t, "wrong update in a node", "%s: got %s of event %d, want %s of event %d; restored up to %d", info.Node, id, info.Seq, want.id, want.seq, s.Seq)
		}
	}
	require.Len(l.t, l.d.nodes(), len(l.held))
}

// update sends updates at lossRate until the daemon has exited, and returns after d. The
// returned function waits for the writers and returns the updates.
func (l *machineLoss) update(d time.Duration) func() []update {
	l.t.Helper()
	var mu sync.Mutex
	var out []update
	var wg sync.WaitGroup
	start := time.Now()
	for w := range lossWriters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			tick := time.NewTicker(time.Second * lossWriters / lossRate)
			defer tick.Stop()
			for range tick.C {
				u := update{node: fmt.Sprint("n", w%lossNodes), id: strconv.FormatInt(l.ids.Add(1), 10)}
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
	<-time.After(time.Until(start.Add(d)))
	return func() []update {
		wg.Wait()
		require.NotEmpty(l.t, out)
		l.sent, l.sending = l.sent+len(out), l.sending+time.Since(start)
		return out
	}
}
