package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// Config is what the daemon's flags say.
type Config struct {
	Dir             string
	XDSAddr         string
	XDSCert         string
	XDSKey          string
	XDSClientCA     string
	AdminAddr       string
	Backend         string
	Resources       string
	ADS             bool
	Heartbeat       time.Duration
	Sync            string
	CompactInterval time.Duration
	KeepSnapshots   int
	KeepFor         time.Duration
	MaxJournalBytes int64
	MaxBodyBytes    int64
	CommitTimeout   time.Duration
	ShutdownTimeout time.Duration
	FailOpen        bool
	NoSnapshots     bool
	MemoryOnly      bool
	LogLevel        string
	LogFormat       string
}

// Flags defines the daemon's flags, with their defaults.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Dir, "dir", "", "data directory; created if need be (required)")
	f.StringVar(&c.XDSAddr, "xds-addr", "127.0.0.1:18000", "address of the xDS server (gRPC)")
	f.StringVar(&c.XDSCert, "xds-tls-cert", "", "PEM file with the xDS server's certificate chain; without one xDS is served in plain text")
	f.StringVar(&c.XDSKey, "xds-tls-key", "", "PEM file with the xDS server's private key")
	f.StringVar(&c.XDSClientCA, "xds-tls-client-ca", "", "PEM file with the authorities whose clients are admitted; without one any client is")
	f.StringVar(&c.AdminAddr, "admin-addr", "127.0.0.1:19000", "address of the admin HTTP interface; it has no authentication, so keep it on loopback")
	f.StringVar(&c.Backend, "backend", "", "URL to ship snapshots to, for example file:///mnt/backup/xdswal; none by default")
	f.StringVar(&c.Resources, "resources", "", "directory of <node>.yaml and <node>.json files with Envoy resources, loaded at start and on change")
	f.BoolVar(&c.ADS, "ads", false, "hold a response until its request names all resources of the node, and order responses by type, as go-control-plane's ADS mode does")
	f.DurationVar(&c.Heartbeat, "heartbeat-interval", 0, "interval of heartbeats for resources with a TTL; 0 sends none")
	f.StringVar(&c.Sync, "sync", journal.SyncAlways.String(), "when an acknowledged update is on stable storage: always, never, or at most a duration later")
	f.DurationVar(&c.CompactInterval, "compact-interval", compactor.DefaultInterval, "time between snapshots")
	f.IntVar(&c.KeepSnapshots, "keep-snapshots", compactor.DefaultKeepSnapshots, "how many snapshots to keep, at least 2")
	f.DurationVar(&c.KeepFor, "keep-for", compactor.DefaultKeepFor, "keep all snapshots of this age or younger besides; every moment within what is kept can be restored")
	f.Int64Var(&c.MaxJournalBytes, "max-journal-bytes", journal.DefaultMaxBytes, "bound of the journal's size")
	f.Int64Var(&c.MaxBodyBytes, "max-body-bytes", admin.DefaultMaxBody, "bound of one admin request's body and of one resource file")
	f.DurationVar(&c.CommitTimeout, "commit-timeout", xdscache.DefaultCommitTimeout, "how long an update waits for its commit")
	f.DurationVar(&c.ShutdownTimeout, "shutdown-timeout", 30*time.Second, "bound of the last snapshot and its shipping at SIGTERM")
	f.BoolVar(&c.FailOpen, "fail-open", false, "apply updates that the journal cannot take, and make them durable by a snapshot as soon as possible")
	f.BoolVar(&c.NoSnapshots, "no-snapshots", false, "keep the journal alone")
	f.BoolVar(&c.MemoryOnly, "memory-only", false, "persist nothing")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
}

// Validate refuses settings that contradict each other.
func (c *Config) Validate() error {
	var errs []error
	if c.Dir == "" && !c.MemoryOnly {
		errs = append(errs, errors.New("--dir is missing: name a data directory, or say --memory-only"))
	}
	if (c.XDSCert == "") != (c.XDSKey == "") {
		errs = append(errs, errors.New("--xds-tls-cert and --xds-tls-key go together"))
	}
	if c.XDSClientCA != "" && c.XDSCert == "" {
		errs = append(errs, errors.New("--xds-tls-client-ca needs --xds-tls-cert and --xds-tls-key"))
	}
	if c.MaxBodyBytes < 1 {
		errs = append(errs, fmt.Errorf("--max-body-bytes is %d: it must be positive", c.MaxBodyBytes))
	}
	for name, d := range map[string]time.Duration{
		"--compact-interval": c.CompactInterval, "--commit-timeout": c.CommitTimeout, "--shutdown-timeout": c.ShutdownTimeout,
	} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s is %s: it must be positive", name, d))
		}
	}
	if c.Heartbeat < 0 {
		errs = append(errs, fmt.Errorf("--heartbeat-interval is %s: it must not be negative", c.Heartbeat))
	}
	return errors.Join(errs...)
}
