package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/internal/view"
)

func (h *Handler) getStatus(s Service, w http.ResponseWriter, _ *http.Request) error {
	return reply(w, view.NewStatus(s.Store.Status()))
}

func (h *Handler) postCompact(s Service, w http.ResponseWriter, r *http.Request) error {
	seq, err := s.Store.Compact(r.Context())
	return replySeq(w, seq, err)
}

// postPromote makes a follower the writer. It does not end when the client goes
// away: the writer before may be fenced by then, and the backend would be left
// with none.
func (h *Handler) postPromote(s Service, w http.ResponseWriter, r *http.Request) error {
	st := s.Store.Status()
	if st.Follower != nil && st.Dir == "" {
		return &problem{http.StatusConflict, "no_directory", "a writer needs a data directory: start the daemon with --dir beside --follow"}
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

// promoteProblem gives an error of a promotion its status and reason.
func promoteProblem(err error) error {
	message := err.Error() + "; the daemon goes on following"
	switch {
	case errors.Is(err, xdswal.ErrDisabled), errors.Is(err, xdswal.ErrClosed):
		return err
	case errors.Is(err, context.Canceled):
		return xdswal.ErrClosed
	case errors.Is(err, xdswal.ErrFenced):
		return &problem{http.StatusConflict, reasonFenced, message + ": promote it again if it is to be the writer all the same"}
	case errors.Is(err, xdswal.ErrLocked):
		return &problem{http.StatusConflict, "locked", message}
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{http.StatusGatewayTimeout, "promote_timeout", message}
	}
	return &problem{http.StatusServiceUnavailable, "promote_failed", message + ", and the writer before may be fenced already: try again"}
}
