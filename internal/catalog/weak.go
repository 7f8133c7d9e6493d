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

// WarnWeak logs the consequence of a weak backend.
func WarnWeak(l *slog.Logger, b backends.Backend) {
	l.Warn("the backend does not create objects conditionally: if two stores take it over in the same instant, both succeed, and one of them learns of the other when it ships next", "backend", b.String())
}
