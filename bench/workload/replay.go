package workload

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

const (
	checksumName = "read and checksum"
	cursorName   = "bbolt cursor and decode"
	replayName   = "xdswal"
)

// tailEvents is the number of events in the replayed journal.
const tailEvents = 100_000

// tailShape is the shape of the restored state: each resource is set ten times.
var tailShape = corpus.Shape{Nodes: 100, PerNode: 100}

func replayWorkload() harness.Workload {
	return harness.Workload{
		Name: "replay/100000-events",
		About: "Open a store that has no snapshot and a journal of 100,000 small events, as after a crash long after the last snapshot. " +
			"Floor: read the journal's files and compute their CRC-32C. Peer: a bbolt cursor over the same files that decodes each record, and neither checks the files nor folds the events.",
		Metrics:     []harness.Metric{metricTime, {Name: "events", Unit: "/s"}, metricHeap, {Name: "heap÷wire"}},
		Comparisons: []harness.Comparison{{Metric: "time", To: checksumName}, {Metric: "time", To: cursorName}},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			t := &tail{dir: filepath.Join(env.Dir, "store")}
			if err := t.make(ctx); err != nil {
				return harness.Prepared{}, err
			}
			return harness.Prepared{
				Notes: []string{fmt.Sprintf("The journal is %d files of %d MiB together; the state is %d resources of %d bytes each.",
					len(t.files), t.size>>20, t.resources, t.wire/int64(t.resources))},
				Candidates: []harness.Candidate{
					{Name: checksumName, Round: t.checksum},
					{Name: cursorName, Round: t.cursor},
					{Name: replayName, Round: t.replay},
				},
			}, nil
		},
	}
}

type tail struct {
	dir       string
	files     []string
	size      int64
	digest    [32]byte
	resources int
	wire      int64
}

func (t *tail) make(ctx context.Context) error {
	store, err := open(ctx, xdswal.Options{Dir: t.dir, Sync: journal.SyncNever, DisableSnapshots: true})
	if err != nil {
		return err
	}
	err = parallel(ctx, tailEvents, func(i int) error {
		m := corpus.Endpoints(i/tailShape.Nodes%tailShape.PerNode, i)
		return setOne(ctx, store.cache, tailShape.Node(i%tailShape.Nodes), m, strconv.Itoa(i))
	})
	st := store.State()
	t.digest, t.resources, t.wire = st.Digest(), st.NumResources(), st.Bytes()
	if err := errors.Join(err, store.Close(ctx)); err != nil {
		return err
	}
	if t.files, err = filepath.Glob(filepath.Join(t.dir, "journal", "*.journal")); err != nil {
		return err
	}
	for _, path := range t.files {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		t.size += info.Size()
	}
	return nil
}

func (t *tail) report(r *harness.Round, d time.Duration) {
	r.ReportTime("time", d)
	r.Report("events", tailEvents/d.Seconds())
}

func (t *tail) replay(ctx context.Context, r *harness.Round) error {
	start := time.Now()
	store, err := open(ctx, xdswal.Options{Dir: t.dir, DisableSnapshots: true})
	if err != nil {
		return err
	}
	t.report(r, time.Since(start))
	r.Report("heap÷wire", r.ReportHeap("heap")/float64(t.wire))
	if n := store.Status().Restored.Events; n != tailEvents {
		err = fmt.Errorf("got %d replayed events, want %d", n, tailEvents)
	} else if store.State().Digest() != t.digest || store.cache.GetNode(tailShape.Node(0)) == nil {
		err = errOtherState
	}
	return errors.Join(err, store.Close(ctx))
}

func (t *tail) checksum(_ context.Context, r *harness.Round) error {
	start := time.Now()
	table := crc32.MakeTable(crc32.Castagnoli)
	var read int64
	for _, path := range t.files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if crc32.Checksum(data, table) == 0 {
			return fmt.Errorf("%s is empty", path)
		}
		read += int64(len(data))
	}
	t.report(r, time.Since(start))
	if read != t.size {
		return fmt.Errorf("got %d bytes, want %d", read, t.size)
	}
	return nil
}

func (t *tail) cursor(_ context.Context, r *harness.Round) error {
	start := time.Now()
	n := 0
	for _, path := range t.files {
		read, err := t.walk(path, journal.Sequence(n))
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		n += read
	}
	t.report(r, time.Since(start))
	if n != tailEvents {
		return fmt.Errorf("got %d events, want %d", n, tailEvents)
	}
	return nil
}

// walk decodes the records of one file, whose first sequence is last+1.
func (t *tail) walk(path string, last journal.Sequence) (n int, err error) {
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("records")).ForEach(func(_, record []byte) error {
			ev, err := event.Unmarshal(append([]byte(nil), record...))
			if err != nil {
				return err
			}
			if n++; ev.Sequence != last+journal.Sequence(n) {
				return fmt.Errorf("got event %d, want %d", ev.Sequence, last+journal.Sequence(n))
			}
			return nil
		})
	})
	return n, err
}
