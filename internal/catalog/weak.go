package catalog

import (
	"context"
	"log/slog"

	"github.com/xdswal/xdswal/backends"
)

// Weak reports whether a backend does not create objects conditionally.
func Weak(ctx context.Context, b backends.Backend) (bool, error) {
	p, ok := b.(backends.ConditionalCreator)
	if !ok {
		return false, nil
	}
	conditional, err := p.ProbeConditionalCreate(ctx)
	return err == nil && !conditional, err
}

// WarnWeak logs the consequence of a weak backend, and what it lacks if it knows that.
func WarnWeak(l *slog.Logger, b backends.Backend) {
	weakness := "it does not create objects conditionally"
	if w, ok := b.(interface{ Weakness() string }); ok {
		weakness = w.Weakness()
	}
	l.Warn("the backend is weak: if two stores take it over in the same instant, both may succeed, and one of them learns of the other when it ships next; start one store at a time", "backend", b.String(), "weakness", weakness)
}
