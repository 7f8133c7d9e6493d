package daemon

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
)

// newHooks returns the hooks of the daemon's metrics and log, and the function
// that tells the metrics of the store when it is open.
func newHooks(reg prometheus.Registerer, logger *slog.Logger) (xdswal.Hooks, func(*xdswal.Store), error) {
	return xdswal.Hooks{}, func(*xdswal.Store) {}, nil
}
