package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

type eventsFlags struct {
	flags
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
	var cmd *cobra.Command
	cmd = f.command("events [--dir DIR] [--backend URL] [--from SEQ] [--to SEQ] [--node NODE] [--cache CACHE] [--type URL] [--limit N] [--bodies]",
		"Show what changed, when and for which node",
		`Events shows the updates in the journal of a data directory and those shipped to a
backend, the oldest first: the names, types and versions of resources. --bodies adds
the resources, which may contain private keys. Without --json, each row is one change
of one resource.

It changes nothing and is safe beside a running daemon. The newest events of a running
daemon can be read only in the backend, once they are shipped. Events reports the first
event that it could not read, with --json in a last line
{"incomplete":{"from":N,...}}. Events that a snapshot covers are compacted away. If
events between others are missing, it reports them, with --json in lines
{"missing":{"from":N,"to":N}}.`,
		"print one line of JSON for each event, with the field names of GET /v1/events",
		func(ctx context.Context, p *printer) error {
			f.anyNode = !cmd.Flags().Changed("node")
			return events(ctx, p, &f)
		})
	cmd.Flags().StringVar(&f.from, "from", "", "first sequence; default the oldest event")
	cmd.Flags().StringVar(&f.to, "to", "", "last sequence; default the newest event")
	cmd.Flags().StringVar(&f.node, "node", "", "show only this node")
	cmd.Flags().StringVar(&f.cache, "cache", "", "show only this cache: snapshot/NAME, linear/NAME, or NAME for snapshot/NAME")
	cmd.Flags().StringVar(&f.typeURL, "type", "", "show only changes of this type, and clears of nodes")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "maximum number of events; 0 is no limit")
	cmd.Flags().BoolVar(&f.bodies, "bodies", false, "show the resources too, private keys included")
	return cmd
}

func events(ctx context.Context, p *printer, f *eventsFlags) error {
	l, err := f.list(p)
	if err != nil {
		return err
	}
	s, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	s.noteStale(p)
	if s.journal == nil && (s.remote == nil || len(s.remote.Batches) == 0) {
		p.note("%s", s.noEvents())
		return nil
	}
	l.history = history{s: s}
	if err := l.begin(); err != nil {
		return err
	}
	err = l.run(ctx)
	l.flush()
	if err != nil {
		return err
	}
	return l.reportMissing()
}

// noEvents says why a source contains no events.
func (s *source) noEvents() string {
	if s.backend == nil {
		return "the directory has no journal: a snapshot covers all its events"
	}
	if s.remote.Empty() {
		return "the backend contains no usable snapshot or event: nothing was shipped to it, or the URL is wrong"
	}
	return "the backend contains no batches of events: snapshots cover all of them; see serve --ship-interval"
}

// eventList shows the events that the flags select.
type eventList struct {
	*eventsFlags
	p       *printer
	history history

	first, end journal.Sequence // end = 0 is the newest
	shown      int
	next       journal.Sequence // the first event after the limit
	rows       [][]string       // not written yet
	headed     bool
}

// list parses the flags.
func (f *eventsFlags) list(p *printer) (*eventList, error) {
	l := &eventList{eventsFlags: f, p: p}
	if f.limit < 0 {
		return nil, fmt.Errorf("--limit is %d: it must not be negative", f.limit)
	}
	var err error
	if f.from != "" {
		if l.first, err = event.ParseSequence(f.from); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if f.to != "" {
		if l.end, err = event.ParseSequence(f.to); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		if l.end < max(l.first, 1) {
			return nil, fmt.Errorf("--to is %d: it must not be 0 or less than --from", l.end)
		}
	}
	f.cache = cacheName(f.cache)
	if f.typeURL != "" && !strings.Contains(f.typeURL, "/") {
		f.typeURL = typePrefix + f.typeURL
	}
	return l, nil
}

// cacheName returns the name of a cache in events.
func cacheName(s string) string {
	if s == "" || strings.HasPrefix(s, cachelog.SnapshotPrefix) || strings.HasPrefix(s, cachelog.LinearPrefix) {
		return s
	}
	return cachelog.SnapshotPrefix + s
}

// selected returns the part of an event that the flags select, or nil.
func (f *eventsFlags) selected(ev *journal.Event) *journal.Event {
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

// begin sets the first event, if --from does not.
func (l *eventList) begin() error {
	if j := l.history.s.journal; j != nil && j.err != nil && !unreadable(j.err) {
		return j.err
	}
	oldest := l.history.first()
	if l.from == "" {
		l.first = oldest
	}
	if l.first = max(l.first, 1); l.first < oldest {
		return fmt.Errorf("event %d has been compacted away; the oldest is %d: use --from %[2]d", l.first, oldest)
	}
	return nil
}

// run shows the events. It starts again if the first ones are compacted away
// before one was shown.
func (l *eventList) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := l.history.Range(ctx, l.first, l.event)
		switch {
		case errors.Is(err, errStop):
			return nil
		case compacted(err) && l.from == "" && l.shown == 0 && attempt < maxAttempts:
			if err := l.history.refresh(ctx); err != nil {
				return err
			}
			l.first = max(l.first, l.history.first())
		default:
			return err
		}
	}
}

// event shows an event as JSON, as YAML, or as rows.
func (l *eventList) event(ev *journal.Event) error {
	if l.end != 0 && ev.Sequence > l.end {
		return errStop
	}
	if ev = l.selected(ev); ev == nil {
		return nil
	}
	if l.limit > 0 && l.shown == l.limit {
		l.next = ev.Sequence
		return errStop
	}
	l.shown++
	switch {
	case l.json:
		return l.p.line(l.view(ev))
	case l.bodies:
		return l.yaml(ev)
	}
	l.rows = append(l.rows, eventRows(ev)...)
	if len(l.rows) >= maxRows {
		l.flush()
	}
	return nil
}

// reportMissing reports the events that were not shown.
func (l *eventList) reportMissing() error {
	for _, m := range l.history.missing {
		if l.end != 0 && m.From > l.end {
			continue
		}
		if l.json {
			if err := l.p.line(map[string]view.Missing{"missing": m}); err != nil {
				return err
			}
		}
		l.p.note("events %d to %d are in neither the journal nor a batch: a snapshot covers them", m.From, m.To)
	}
	if l.next != 0 {
		l.p.note("there are more events: continue with --from %d", l.next)
		return nil
	}
	if l.shown == 0 {
		l.p.note("no event that can be read matches")
	}
	hidden := l.history.s.journal.incomplete(l.history.last)
	if hidden == nil || (l.end != 0 && l.end < hidden.From) {
		return nil
	}
	if l.json {
		if err := l.p.line(map[string]*view.Incomplete{"incomplete": hidden}); err != nil {
			return err
		}
	}
	l.p.note("%s", hidden.Message)
	return nil
}

// maxRows is the number of rows with columns of the same width.
const maxRows = 1000

// flush writes rows.
func (l *eventList) flush() {
	if len(l.rows) == 0 {
		return
	}
	var heading []string
	if !l.headed {
		heading = []string{"SEQ", "TIME", "CACHE", "NODE", "CHANGE", "TYPE", "VERSION", "RESOURCE", "RESOURCE VERSION", "SIZE"}
	}
	l.p.table(heading, l.rows...)
	l.rows, l.headed = l.rows[:0], true
}

// view returns an event for JSON, with the bodies of resources if the flags say
// so.
func (l *eventList) view(ev *journal.Event) view.Event {
	out := view.NewEvent(ev)
	if !l.bodies {
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

// shortVersion is the number of characters of a resource's version, a hash, in a
// table.
const shortVersion = 12

func eventRows(ev *journal.Event) [][]string {
	head := []string{number(ev.Sequence), when(&ev.Time), shown(ev.Cache), shown(ev.Node)}
	var rows [][]string
	row := func(cells ...string) { rows = append(rows, slices.Concat(head, cells)) }
	if len(ev.Types) == 0 {
		row(ev.Kind.String())
	}
	for i := range ev.Types {
		tc := &ev.Types[i]
		url, version := shortType(tc.TypeURL), shown(tc.Version)
		for _, r := range tc.Upserts {
			row("set", url, version, shown(r.Name), shown(r.Version[:min(len(r.Version), shortVersion)]), size(r.Size()))
		}
		for _, name := range tc.Deletes {
			row("delete", url, version, shown(name))
		}
	}
	for _, v := range bareVersions(ev) {
		row("version", v.types, shown(v.version))
	}
	return rows
}

// bareVersion is a version that an event sets for types of which it changes no
// resource. An event that sets a resource set has one for each unchanged type.
type bareVersion struct {
	version string
	types   string
	count   int
}

// bareVersions returns the bare versions of an event, in the order of the types.
func bareVersions(ev *journal.Event) []bareVersion {
	var out []bareVersion
	for i := range ev.Types {
		tc := &ev.Types[i]
		if len(tc.Upserts)+len(tc.Deletes) > 0 {
			continue
		}
		at := slices.IndexFunc(out, func(v bareVersion) bool { return v.version == tc.Version })
		if at < 0 {
			out = append(out, bareVersion{version: tc.Version, types: shortType(tc.TypeURL), count: 1})
			continue
		}
		out[at].count++
		out[at].types = fmt.Sprintf("(%d types)", out[at].count)
	}
	return out
}

// yaml writes the resources that an event sets as a YAML document, and the other
// changes as comments before it.
func (l *eventList) yaml(ev *journal.Event) error {
	out := l.p.out
	fmt.Fprintf(out, "---\n# event %d of %s: %s of node %q in %s\n", ev.Sequence, when(&ev.Time), ev.Kind, ev.Node, shown(ev.Cache))
	for i := range ev.Types {
		for _, name := range ev.Types[i].Deletes {
			fmt.Fprintf(out, "# delete %s %q\n", shortType(ev.Types[i].TypeURL), name)
		}
	}
	for _, v := range bareVersions(ev) {
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
	return l.p.write(data)
}
