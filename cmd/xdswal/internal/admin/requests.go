package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// replySeq responds with the sequence of an update or a snapshot.
func replySeq(w http.ResponseWriter, seq journal.Sequence, err error) error {
	if err != nil {
		return err
	}
	return reply(w, struct {
		Seq journal.Sequence `json:"seq"`
	}{seq})
}

func (h *Handler) putSnapshot(s Service, w http.ResponseWriter, r *http.Request) error {
	name, data, err := h.nodeAndBody(w, r)
	if err != nil {
		return err
	}
	doc, err := resourcefile.Parse(data)
	if err != nil {
		return err
	}
	snapshot, err := doc.Snapshot()
	if err != nil {
		return err
	}
	seq, err := s.Cache.Set(r.Context(), name, snapshot)
	return replySeq(w, seq, err)
}

func (h *Handler) patchResources(s Service, w http.ResponseWriter, r *http.Request) error {
	name, data, err := h.nodeAndBody(w, r)
	if err != nil {
		return err
	}
	patch, err := resourcefile.ParsePatch(data)
	if err != nil {
		return err
	}
	upserts := map[string][]types.ResourceWithTTL{}
	for _, u := range patch.Upsert {
		upserts[u.TypeURL] = append(upserts[u.TypeURL], types.ResourceWithTTL{Resource: u.Message, TTL: u.TTL})
	}
	var deletes []xdscache.ResourceName
	for _, d := range patch.Delete {
		deletes = append(deletes, xdscache.ResourceName{TypeURL: d.TypeURL, Name: d.Name})
	}
	seq, err := s.Cache.UpdateResources(r.Context(), name, upserts, deletes, patch.Version)
	return replySeq(w, seq, err)
}

func (h *Handler) deleteSnapshot(s Service, w http.ResponseWriter, r *http.Request) error {
	name, err := node(r)
	if err != nil {
		return err
	}
	seq, err := s.Cache.Clear(r.Context(), name)
	return replySeq(w, seq, err)
}

func (h *Handler) getSnapshot(s Service, w http.ResponseWriter, r *http.Request) error {
	name, err := node(r)
	if err != nil {
		return err
	}
	if s.Cache.GetNode(name) == nil {
		return &problem{http.StatusNotFound, "unknown_node", fmt.Sprintf("node %q has no snapshot", name)}
	}
	snapshot, err := s.Cache.GetSnapshot(name)
	if err != nil {
		return err
	}
	format := resourcefile.JSON
	if r.URL.Query().Get("format") == "yaml" || strings.Contains(r.Header.Get("Accept"), "yaml") {
		format = resourcefile.YAML
	}
	data, err := resourcefile.Marshal(resourcefile.FromSnapshot(snapshot), format)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/"+strings.ToLower(string(format)))
	_, _ = w.Write(data)
	return nil
}

// Bounds of a page.
const (
	defaultLimit = 1000
	maxLimit     = 10_000
	// maxChanges bounds the changed resources in a page of events, because one
	// event can change any number.
	maxChanges = 20_000
)

func limit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, &problem{http.StatusBadRequest, "bad_limit", fmt.Sprintf("limit is %q: want 1 to %d", text, maxLimit)}
	}
	return n, nil
}

func (h *Handler) getNodes(s Service, w http.ResponseWriter, r *http.Request) error {
	most, err := limit(r)
	if err != nil {
		return err
	}
	after := r.URL.Query().Get("after")
	out := struct {
		Nodes []view.Node `json:"nodes"`
		// Next is the after of the next page.
		Next string `json:"next,omitempty"`
	}{Nodes: []view.Node{}}
	for n := range s.Cache.Nodes() {
		if after != "" && n.Name() <= after {
			continue
		}
		if len(out.Nodes) == most {
			out.Next = out.Nodes[most-1].Node
			break
		}
		out.Nodes = append(out.Nodes, view.NewNode((*state.Node)(n)))
	}
	return reply(w, out)
}

// errStop ends a range of events early.
var errStop = errors.New("stop")

func (h *Handler) getEvents(s Service, w http.ResponseWriter, r *http.Request) error {
	most, err := limit(r)
	if err != nil {
		return err
	}
	from := s.Store.Status().Journal.First
	if text := r.URL.Query().Get("from"); text != "" {
		if from, err = event.ParseSequence(text); err != nil {
			return &problem{http.StatusBadRequest, "bad_sequence", err.Error()}
		}
	}
	out := struct {
		Events []view.Event `json:"events"`
		// Next is the from of the next page.
		Next journal.Sequence `json:"next,omitempty"`
	}{Events: []view.Event{}}
	changes := 0
	err = s.Store.Events(r.Context(), from, 0, func(ev *journal.Event) error {
		for i := range ev.Types {
			changes += len(ev.Types[i].Upserts) + len(ev.Types[i].Deletes)
		}
		if len(out.Events) == most || (changes > maxChanges && len(out.Events) > 0) {
			out.Next = ev.Sequence
			return errStop
		}
		out.Events = append(out.Events, view.NewEvent(ev))
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	return reply(w, out)
}

func (h *Handler) getStatus(s Service, w http.ResponseWriter, _ *http.Request) error {
	return reply(w, view.NewStatus(s.Store.Status()))
}

func (h *Handler) postCompact(s Service, w http.ResponseWriter, r *http.Request) error {
	seq, err := s.Store.Compact(r.Context())
	return replySeq(w, seq, err)
}

// postPromote makes a follower the writer. It continues if the client disconnects,
// because the previous writer may already be fenced, and the backend would have no
// writer.
func (h *Handler) postPromote(s Service, w http.ResponseWriter, r *http.Request) error {
	st := s.Store.Status()
	if st.Follower != nil && st.Dir == "" {
		return &problem{http.StatusConflict, "no_directory", "a writer needs a data directory: start the daemon with --dir and --follow"}
	}
	ctx, cancel := context.WithTimeout(s.Context, promoteTimeout)
	defer cancel()
	switch err := s.Store.Promote(ctx); {
	case err != nil && st.Follower == nil:
		return err
	case err != nil:
		return promoteProblem(err)
	}
	return h.getStatus(s, w, r)
}

// promoteProblem returns the error of a promotion with its status and reason.
func promoteProblem(err error) error {
	message := err.Error() + "; the daemon remains a follower"
	switch {
	case errors.Is(err, xdswal.ErrDisabled), errors.Is(err, xdswal.ErrClosed):
		return err
	case errors.Is(err, context.Canceled):
		return xdswal.ErrClosed
	case errors.Is(err, xdswal.ErrFenced):
		return &problem{http.StatusConflict, reasonFenced, message + "; to make it the writer nevertheless, promote it again"}
	case errors.Is(err, xdswal.ErrLocked):
		return &problem{http.StatusConflict, "locked", message}
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{http.StatusGatewayTimeout, "promote_timeout", message}
	}
	return &problem{http.StatusServiceUnavailable, "promote_failed", message + ", and the previous writer may already be fenced; try again"}
}
