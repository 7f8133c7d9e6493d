package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	bolt "go.etcd.io/bbolt"

	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// Names of candidates.
const (
	rawName     = "raw group commit"
	journalName = "xdswal journal"
	naiveName   = "bbolt db.Update"
)

func appendWorkload(writers int) harness.Workload {
	w := appender{writers: writers}
	for i := range writers {
		w.nodes = append(w.nodes, typical.Node(i))
	}
	return harness.Workload{
		Name: fmt.Sprintf("append/%d-writers", writers),
		About: fmt.Sprintf("%d writers each append one event of a small endpoint change at a time and wait until it is durable. "+
			"Floor: a file filled with zeros, to which one goroutine writes the queued records and calls fdatasync. "+
			"Every round uses a new file and reads it back.", writers),
		Metrics: []harness.Metric{
			{Name: "appends", Unit: "/s"}, metricP50, metricP99, {Name: "events", Unit: "/ commit"},
		},
		Comparisons: []harness.Comparison{{Metric: "appends", To: rawName}, {Metric: "appends", To: naiveName}, {Metric: "p99", To: rawName}},
		Open: func(_ context.Context, env harness.Env) (harness.Prepared, error) {
			w.dir = env.Dir
			record, err := event.Marshal(w.event(0, 0))
			if err != nil {
				return harness.Prepared{}, err
			}
			w.record = record
			return harness.Prepared{
				Notes: []string{fmt.Sprintf("An event's record is %d bytes long.", len(record))},
				Candidates: []harness.Candidate{
					{Name: rawName, Round: w.inNewDir(w.raw)},
					{Name: journalName, Round: w.inNewDir(w.journal)},
					{Name: naiveName, Round: w.inNewDir(w.naive)},
				},
			}, nil
		},
	}
}

type appender struct {
	dir     string
	writers int
	nodes   []string
	record  []byte // all records have its size
}

// changed is the resource of every event.
var changed = func() *journal.Resource {
	m := corpus.Endpoints(42, 1)
	value, err := cachev3.MarshalResource(m)
	if err != nil {
		panic(err) // the corpus is valid
	}
	return &journal.Resource{
		Name: cachev3.GetResourceName(m), TypeURL: resourcev3.EndpointType, Version: cachev3.HashResource(value), Value: value,
	}
}()

// event returns the i-th event of a writer. Its version contains both numbers.
func (a appender) event(writer, i int) *journal.Event {
	return &journal.Event{
		Kind: journal.Update, Cache: "snapshot/", Node: a.nodes[writer],
		Types: []journal.TypeChange{{
			TypeURL: resourcev3.EndpointType, Version: strconv.Itoa(writer) + "." + strconv.Itoa(i),
			Upserts: []*journal.Resource{changed},
		}},
	}
}

// inNewDir runs each round in a new directory, which is removed after it.
func (a appender) inNewDir(round func(context.Context, *harness.Round, string) error) func(context.Context, *harness.Round) error {
	return func(ctx context.Context, r *harness.Round) (err error) {
		dir, err := os.MkdirTemp(a.dir, "round-*")
		if err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		return round(ctx, r, dir)
	}
}

func (a appender) raw(ctx context.Context, r *harness.Round, dir string) error {
	l, err := newRawLog(dir)
	if err != nil {
		return err
	}
	d, err := drive(ctx, a.writers, r.Window, func(context.Context, int, int) error { return l.append(a.record) })
	records, closeErr := l.close()
	if err := errors.Join(err, closeErr); err != nil {
		return err
	}
	if records != d.total {
		return fmt.Errorf("got %d appends, want %d", records, d.total)
	}
	d.report(r, "appends")
	r.Report("events", float64(l.records)/float64(l.commits))
	return nil
}

func (a appender) journal(ctx context.Context, r *harness.Round, dir string) error {
	commits := 0
	j, err := wal.Open(dir, wal.Options{Hooks: journal.Hooks{Commit: func(journal.Commit) { commits++ }}})
	if err != nil {
		return err
	}
	d, err := drive(ctx, a.writers, r.Window, func(ctx context.Context, writer, i int) error {
		_, err := j.Append(ctx, a.event(writer, i))
		return err
	})
	if err := errors.Join(err, j.Close()); err != nil {
		return err
	}
	d.report(r, "appends")
	r.Report("events", float64(d.total)/float64(commits))
	return checkJournal(ctx, dir, d)
}

// checkJournal reads a journal: it must contain all appends of every writer, in the
// writer's order, and nothing else.
func checkJournal(ctx context.Context, dir string, d driven) error {
	j, err := wal.Open(dir, wal.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	seen := make([]int, len(d.counts))
	err = j.Range(ctx, 1, 0, func(ev *journal.Event) error {
		w, i, _ := strings.Cut(ev.Types[0].Version, ".")
		writer, err := strconv.Atoi(w)
		if err != nil {
			return fmt.Errorf("event %d: %w", ev.Sequence, err)
		}
		if i != strconv.Itoa(seen[writer]) {
			return fmt.Errorf("event %d: got append %s of writer %s, want %d", ev.Sequence, i, w, seen[writer])
		}
		seen[writer]++
		return nil
	})
	if err := errors.Join(err, j.Close()); err != nil {
		return err
	}
	for w, n := range d.counts {
		if seen[w] != n {
			return fmt.Errorf("got %d appends of writer %d, want %d", seen[w], w, n)
		}
	}
	return nil
}

var bucketName = []byte("events")

// naive commits one transaction for each event.
func (a appender) naive(ctx context.Context, r *harness.Round, dir string) error {
	db, err := bolt.Open(filepath.Join(dir, "naive.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open bbolt: %w", err)
	}
	defer db.Close()
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucketName)
		return err
	})
	if err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	d, err := drive(ctx, a.writers, r.Window, func(_ context.Context, writer, i int) error {
		record, err := event.Marshal(a.event(writer, i))
		if err != nil {
			return err
		}
		return db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			seq, err := b.NextSequence()
			if err != nil {
				return err
			}
			return b.Put(binary.BigEndian.AppendUint64(nil, seq), record)
		})
	})
	if err != nil {
		return err
	}
	d.report(r, "appends")
	r.Report("events", 1)
	return db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bucketName).Stats().KeyN; n != d.total {
			return fmt.Errorf("got %d appends, want %d", n, d.total)
		}
		return nil
	})
}
