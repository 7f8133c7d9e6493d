package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// replySeq answers an update with the sequence at which it is durable.
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
	seq, err := s.Cache.Delete(r.Context(), name)
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

// Bounds of a page of nodes or events.
const (
	defaultLimit = 1000
	maxLimit     = 10_000
	// maxChanges bounds the resources that the events of a page tell of: each
	// event may be of any number of them.
	maxChanges = 20_000
)

func limit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, &problem{http.StatusBadRequest, "bad_limit", fmt.Sprintf("limit must be 1 to %d", maxLimit)}
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
		// Next is the value of after that gives the next page.
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
		out.Nodes = append(out.Nodes, view.NewNode(n))
	}
	return reply(w, out)
}

var errEnough = errors.New("enough")

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
		// Next is the value of from that gives the next page.
		Next journal.Sequence `json:"next,omitempty"`
	}{Events: []view.Event{}}
	changes := 0
	err = s.Store.Events(r.Context(), from, 0, func(ev *journal.Event) error {
		for i := range ev.Types {
			changes += len(ev.Types[i].Upserts) + len(ev.Types[i].Deletes)
		}
		if len(out.Events) == most || (changes > maxChanges && len(out.Events) > 0) {
			out.Next = ev.Sequence
			return errEnough
		}
		out.Events = append(out.Events, view.NewEvent(ev))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return reply(w, out)
}
