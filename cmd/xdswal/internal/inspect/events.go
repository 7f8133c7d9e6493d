package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

type eventsFlags struct {
	common
	from, to string
	node     string
	anyNode  bool
	cache    string
	typeURL  string
	limit    int
	bodies   bool
}

func eventsCommand() *cobra.Command {
	var f eventsFlags
	cmd := &cobra.Command{
		Use:   "events [--dir DIR] [--backend URL] [--from SEQ] [--to SEQ] [--node NODE] [--cache CACHE] [--type URL] [--limit N] [--bodies]",
		Short: "Show what changed, when, for which node",
		Long: `Events shows the updates in the journal of a data directory, and those that were
shipped to a backend, the oldest first: names, types and versions, and the
resources themselves with --bodies, which may be private keys. Without --json each
row is one change of one resource.

It changes nothing and is safe beside a running daemon, whose newest events it
cannot read in the directory, but in the backend as soon as they were shipped: it
says from which one on, in JSON by a last line {"incomplete":{"from":N,...}}.
Events that a snapshot covers are kept no more. If some are missing between
others, it says which, in JSON by lines {"missing":{"from":N,"to":N}}.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = run(func(ctx context.Context, p *printer) error {
		f.anyNode = !cmd.Flags().Changed("node")
		return events(ctx, p, &f)
	})
	f.dirFlag(cmd)
	f.backendFlag(cmd)
	f.jsonFlag(cmd, "print one line of JSON for each event, with the names of GET /v1/events")
	cmd.Flags().StringVar(&f.from, "from", "", "first sequence; default the oldest that is kept")
	cmd.Flags().StringVar(&f.to, "to", "", "last sequence; default the newest")
	cmd.Flags().StringVar(&f.node, "node", "", "show this node alone")
	cmd.Flags().StringVar(&f.cache, "cache", "", "show this cache alone: snapshot/NAME, linear/NAME, or NAME for snapshot/NAME")
	cmd.Flags().StringVar(&f.typeURL, "type", "", "show changes of this type alone, and the clearing of nodes")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "show at most so many events; 0 for all")
	cmd.Flags().BoolVar(&f.bodies, "bodies", false, "show resources too, private keys included")
	return cmd
}

func events(ctx context.Context, p *printer, f *eventsFlags) error {
	q, err := f.query()
	if err != nil {
		return err
	}
	s, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	s.warn(p)
	if s.tail == nil && (s.remote == nil || len(s.remote.Batches) == 0) {
		p.note("%s", s.noEvents())
		return nil
	}
	h := &history{s: s}
	if err := q.begin(h); err != nil {
		return err
	}
	show := newEventPrinter(p, f)
	err = q.run(ctx, h, show.event)
	show.end()
	if err != nil {
		return err
	}
	return q.tell(p, h, f.json)
}

// noEvents says why there is no event.
func (s *source) noEvents() string {
	if s.backend == nil {
		return "the directory has no journal: a snapshot covers all its events"
	}
	if s.remote.Empty() {
		return "the backend holds neither a snapshot nor an event that counts: nothing was shipped there, or the URL names another place"
	}
	return "the backend holds no batches of events: snapshots cover all of them; see serve --ship-interval"
}

// query says which events to show.
type query struct {
	from, to journal.Sequence
	given    bool // from is what the user said
	keep     func(*journal.Event) *journal.Event
	limit    int
	shown    int
	next     journal.Sequence // to go on from, if the limit was reached
}

func (f *eventsFlags) query() (*query, error) {
	q := &query{given: f.from != "", limit: f.limit, keep: f.keep}
	if f.limit < 0 {
		return nil, fmt.Errorf("--limit is %d: it must not be negative", f.limit)
	}
	var err error
	if f.from != "" {
		if q.from, err = event.ParseSequence(f.from); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if f.to != "" {
		if q.to, err = event.ParseSequence(f.to); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		if q.to < max(q.from, 1) {
			return nil, fmt.Errorf("--to is %d: it must not be before --from, nor 0", uint64(q.to))
		}
	}
	f.cache, f.typeURL = cacheName(f.cache), fullType(f.typeURL)
	return q, nil
}

// cacheName returns a cache's name as events have it.
func cacheName(s string) string {
	if s == "" || strings.HasPrefix(s, xdscache.SnapshotCacheName("")) || strings.HasPrefix(s, xdscache.LinearCacheName("")) {
		return s
	}
	return xdscache.SnapshotCacheName(s)
}

func fullType(url string) string {
	if url == "" || strings.Contains(url, "/") {
		return url
	}
	return typePrefix + url
}

// keep returns what is to be shown of an event, nil for nothing.
func (f *eventsFlags) keep(ev *journal.Event) *journal.Event {
	if (!f.anyNode && ev.Node != f.node) || (f.cache != "" && ev.Cache != f.cache) {
		return nil
	}
	if f.typeURL == "" || ev.Kind == journal.Clear {
		return ev
	}
	for i := range ev.Types {
		if ev.Types[i].TypeURL == f.typeURL {
			out := *ev
			out.Types = ev.Types[i : i+1]
			return &out
		}
	}
	return nil
}

// begin finds where to begin.
func (q *query) begin(h *history) error {
	if t := h.s.tail; t != nil && t.err != nil && !unreadable(t.err) {
		return t.err
	}
	oldest := h.first()
	if !q.given {
		q.from = oldest
	}
	if q.from = max(q.from, 1); q.from < oldest {
		return fmt.Errorf("event %d is kept no more: a snapshot covers it; the oldest event is %d: say --from %[2]d", uint64(q.from), uint64(oldest))
	}
	return nil
}

// run shows the events. It begins again where a snapshot has come to cover the
// first ones, of which none was shown yet.
func (q *query) run(ctx context.Context, h *history, show func(*journal.Event) error) error {
	for try := 1; ; try++ {
		err := h.Range(ctx, q.from, func(ev *journal.Event) error { return q.event(ev, show) })
		switch {
		case errors.Is(err, errEnough):
			return nil
		case gone(err) && !q.given && q.shown == 0 && try < attempts:
			if err := h.look(ctx); err != nil {
				return err
			}
			h.missing = nil
			q.from = max(q.from, h.first())
		default:
			return err
		}
	}
}

func (q *query) event(ev *journal.Event, show func(*journal.Event) error) error {
	if q.to != 0 && ev.Sequence > q.to {
		return errEnough
	}
	kept := q.keep(ev)
	if kept == nil {
		return nil
	}
	if q.limit > 0 && q.shown == q.limit {
		q.next = ev.Sequence
		return errEnough
	}
	q.shown++
	return show(kept)
}

// tell tells of events that were not shown.
func (q *query) tell(p *printer, h *history, json bool) error {
	for _, m := range h.missing {
		if q.to != 0 && m.From > q.to {
			continue
		}
		if json {
			if err := p.line(map[string]view.Missing{"missing": m}); err != nil {
				return err
			}
		}
		p.note("events %d to %d are in neither the journal nor a batch: a snapshot covers them", uint64(m.From), uint64(m.To))
	}
	if q.next != 0 {
		p.note("there are more events: go on with --from %d", uint64(q.next))
		return nil
	}
	if q.shown == 0 {
		p.note("no event that can be read matches")
	}
	hidden := h.s.tail.incomplete(h.last)
	if hidden == nil || (q.to != 0 && q.to < hidden.From) {
		return nil
	}
	if json {
		if err := p.line(map[string]*view.Incomplete{"incomplete": hidden}); err != nil {
			return err
		}
	}
	p.note("%s", hidden.Message)
	return nil
}

// eventPrinter prints events as JSON, as a table, or, with bodies, as YAML.
type eventPrinter struct {
	p            *printer
	json, bodies bool
	rows         [][]string
	headed       bool
}

func newEventPrinter(p *printer, f *eventsFlags) *eventPrinter {
	return &eventPrinter{p: p, json: f.json, bodies: f.bodies}
}

func (e *eventPrinter) event(ev *journal.Event) error {
	switch {
	case e.json:
		return e.p.line(e.view(ev))
	case e.bodies:
		return e.yaml(ev)
	}
	e.rows = append(e.rows, eventRows(ev)...)
	if len(e.rows) >= rowsTogether {
		e.end()
	}
	return nil
}

// rowsTogether is how many rows have columns of the same width.
const rowsTogether = 1000

var eventHeading = []string{"SEQ", "TIME", "CACHE", "NODE", "CHANGE", "TYPE", "VERSION", "RESOURCE", "RESOURCE VERSION", "SIZE"}

// end prints the rows that wait.
func (e *eventPrinter) end() {
	if len(e.rows) == 0 {
		return
	}
	heading := eventHeading
	if e.headed {
		heading = nil
	}
	e.p.table(heading, e.rows)
	e.rows, e.headed = e.rows[:0], true
}

func (e *eventPrinter) view(ev *journal.Event) view.Event {
	out := view.NewEvent(ev)
	if !e.bodies {
		return out
	}
	for i := range ev.Types {
		for k, r := range ev.Types[i].Upserts {
			data, err := body(r)
			out.Types[i].Set[k].Body = data
			if err != nil {
				out.Types[i].Set[k].BodyError = err.Error()
			}
		}
	}
	return out
}

// shortVersion is how much of a resource's version, which is a hash, a table
// shows.
const shortVersion = 12

func eventRows(ev *journal.Event) [][]string {
	head := []string{number(ev.Sequence), when(ev.Time), shown(ev.Cache), shown(ev.Node)}
	row := func(cells ...string) []string { return append(append([]string{}, head...), cells...) }
	if len(ev.Types) == 0 {
		return [][]string{row(ev.Kind.String())}
	}
	var rows [][]string
	for i := range ev.Types {
		tc := &ev.Types[i]
		url, version := shortType(tc.TypeURL), shown(tc.Version)
		for _, r := range tc.Upserts {
			of := r.Version[:min(len(r.Version), shortVersion)]
			rows = append(rows, row("set", url, version, shown(r.Name), shown(of), size(r.Size())))
		}
		for _, name := range tc.Deletes {
			rows = append(rows, row("delete", url, version, shown(name)))
		}
	}
	for _, v := range versionsAlone(ev) {
		rows = append(rows, row("version", v.types, shown(v.version)))
	}
	return rows
}

// versionAlone is a version that types got without a change of a resource. A
// snapshot that is set gives one to every type.
type versionAlone struct {
	version string
	types   string
	count   int
}

// versionsAlone returns these versions, in the order of the types.
func versionsAlone(ev *journal.Event) []versionAlone {
	var out []versionAlone
	for i := range ev.Types {
		tc := &ev.Types[i]
		if len(tc.Upserts)+len(tc.Deletes) > 0 {
			continue
		}
		at := slices.IndexFunc(out, func(v versionAlone) bool { return v.version == tc.Version })
		if at < 0 {
			out = append(out, versionAlone{version: tc.Version, types: shortType(tc.TypeURL), count: 1})
			continue
		}
		out[at].count++
		out[at].types = fmt.Sprintf("(%d types)", out[at].count)
	}
	return out
}

// yaml prints what an event sets as a YAML document, under comments that tell
// the rest.
func (e *eventPrinter) yaml(ev *journal.Event) error {
	out := e.p.out
	fmt.Fprintf(out, "---\n# event %d of %s: %s of node %q in %s\n", uint64(ev.Sequence), when(ev.Time), ev.Kind, ev.Node, shown(ev.Cache))
	for i := range ev.Types {
		for _, name := range ev.Types[i].Deletes {
			fmt.Fprintf(out, "# delete %s %q\n", shortType(ev.Types[i].TypeURL), name)
		}
	}
	for _, v := range versionsAlone(ev) {
		fmt.Fprintf(out, "# version %q of %s\n", v.version, v.types)
	}
	doc, err := changed(ev)
	if err == nil && len(doc.Resources) == 0 {
		return nil
	}
	var data []byte
	if err == nil {
		data, err = resourcefile.Marshal(doc, resourcefile.YAML)
	}
	if err != nil {
		fmt.Fprintf(out, "# not shown: %s\n", oneLine(err))
		return nil
	}
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
