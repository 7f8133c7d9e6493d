package daemon

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/follow"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/wal"
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
	ShipInterval    time.Duration
	RequireBackend  bool
	BackendTimeout  time.Duration
	Follow          string
	FollowInterval  time.Duration
	Resources       string
	ADS             bool
	Heartbeat       time.Duration
	Sync            string
	CompactInterval time.Duration
	KeepSnapshots   int
	KeepFor         time.Duration
	NoPrune         bool
	MaxJournalBytes int64
	MaxBodyBytes    int64
	CommitTimeout   time.Duration
	ShutdownTimeout time.Duration
	FailOpen        bool
	NoSnapshots     bool
	MemoryOnly      bool
	LogLevel        string
	LogFormat       string

	// Name returns what to call a setting in an error, by its flag's name: it
	// may stand in a file. If it is nil, that is the flag.
	Name func(flag string) string
}

func (c *Config) name(flag string) string {
	if c.Name == nil {
		return "--" + flag
	}
	return c.Name(flag)
}

// Flags defines the daemon's flags, with their defaults.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Dir, "dir", "", "data directory; created if need be (required, unless --follow is given)")
	f.StringVar(&c.XDSAddr, "xds-addr", "127.0.0.1:18000", "address of the xDS server (gRPC)")
	f.StringVar(&c.XDSCert, "xds-tls-cert", "", "PEM file with the xDS server's certificate chain; without one xDS is served in plain text")
	f.StringVar(&c.XDSKey, "xds-tls-key", "", "PEM file with the xDS server's private key")
	f.StringVar(&c.XDSClientCA, "xds-tls-client-ca", "", "PEM file with the authorities whose clients are admitted; without one any client is")
	f.StringVar(&c.AdminAddr, "admin-addr", "127.0.0.1:19000", "address of the admin HTTP interface; it has no authentication, so keep it on loopback")
	f.StringVar(&c.Backend, "backend", "", "URL to ship the journal and its snapshots to, for example s3://bucket/prefix?endpoint=https://s3.example&region=eu-west-1&path_style=true, with credentials as the AWS SDK finds them, or file:///mnt/backup/xdswal; none by default")
	f.DurationVar(&c.ShipInterval, "ship-interval", 0, "least time between two shipments of the journal's newest events: with the machine, what came since the last one is lost; 0 is "+ship.DefaultInterval.String()+", or snapshots alone with a file:// backend, which may be on the same machine; a negative value ships snapshots alone")
	f.BoolVar(&c.RequireBackend, "require-backend", false, "refuse to start if the backend cannot be reached; else what is local is served, with a warning, and the backend is taken over as soon as it can be")
	f.DurationVar(&c.BackendTimeout, "backend-timeout", directory.DefaultBackendTimeout, "how long the start waits for the backend when what is local will do")
	f.StringVar(&c.Follow, "follow", "", "URL of another daemon's --backend: serve what that one ships, and take no updates until POST /v1/promote makes this one the writer, which needs --dir")
	f.DurationVar(&c.FollowInterval, "follow-interval", follow.DefaultInterval, "how often a follower looks for what is new")
	f.StringVar(&c.Resources, "resources", "", "directory of <node>.yaml and <node>.json files with Envoy resources, loaded at start and on change")
	f.BoolVar(&c.ADS, "ads", false, "hold a response until its request names all resources of the node, and order responses by type, as go-control-plane's ADS mode does")
	f.DurationVar(&c.Heartbeat, "heartbeat-interval", 0, "interval of heartbeats for resources with a TTL; 0 sends none")
	f.StringVar(&c.Sync, "sync", journal.SyncAlways.String(), "when an acknowledged update is on stable storage: always, never, or at most a duration later")
	f.DurationVar(&c.CompactInterval, "compact-interval", compact.DefaultInterval, "time between snapshots")
	f.IntVar(&c.KeepSnapshots, "keep-snapshots", compact.DefaultKeepSnapshots, "how many snapshots to keep, at least 2")
	f.DurationVar(&c.KeepFor, "keep-for", compact.DefaultKeepFor, "keep all snapshots of this age or younger besides; every moment within what is kept can be restored")
	f.BoolVar(&c.NoPrune, "no-prune", false, "delete nothing from the backend, for credentials that may not")
	f.Int64Var(&c.MaxJournalBytes, "max-journal-bytes", wal.DefaultMaxBytes, "bound of the journal's size, at least two segments of "+strconv.Itoa(wal.DefaultSegmentBytes>>20)+" MiB")
	f.Int64Var(&c.MaxBodyBytes, "max-body-bytes", admin.DefaultMaxBody, "bound of one admin request's body and of one resource file")
	f.DurationVar(&c.CommitTimeout, "commit-timeout", xdscache.DefaultCommitTimeout, "how long an update waits for its commit")
	f.DurationVar(&c.ShutdownTimeout, "shutdown-timeout", 30*time.Second, "bound of the last snapshot and its shipping at SIGTERM")
	f.BoolVar(&c.FailOpen, "fail-open", false, "apply updates that the journal cannot take, and make them durable by a snapshot as soon as possible")
	f.BoolVar(&c.NoSnapshots, "no-snapshots", false, "keep the journal alone")
	f.BoolVar(&c.MemoryOnly, "memory-only", false, "persist nothing")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
}

const minJournalBytes = 2 * wal.DefaultSegmentBytes

// Validate refuses settings that are of no use, or contradict each other.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" && !c.MemoryOnly && c.Follow == "" {
		refuse("%s is missing: name a data directory, or say --memory-only", c.name("dir"))
	}
	c.validateBackend(refuse)
	if (c.XDSCert == "") != (c.XDSKey == "") {
		refuse("%s and %s go together", c.name("xds-tls-cert"), c.name("xds-tls-key"))
	}
	if c.XDSClientCA != "" && c.XDSCert == "" {
		refuse("%s needs %s and %s", c.name("xds-tls-client-ca"), c.name("xds-tls-cert"), c.name("xds-tls-key"))
	}
	if c.MaxBodyBytes < 1 {
		refuse("%s is %d: it must be positive", c.name("max-body-bytes"), c.MaxBodyBytes)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"compact-interval", c.CompactInterval},
		{"commit-timeout", c.CommitTimeout},
		{"shutdown-timeout", c.ShutdownTimeout},
		{"backend-timeout", c.BackendTimeout},
		{"follow-interval", c.FollowInterval},
	} {
		if d.value <= 0 {
			refuse("%s is %s: it must be positive", c.name(d.flag), d.value)
		}
	}
	if c.Heartbeat < 0 {
		refuse("%s is %s: it must not be negative", c.name("heartbeat-interval"), c.Heartbeat)
	}
	if c.KeepFor < 0 {
		refuse("%s is %s: it must not be negative", c.name("keep-for"), c.KeepFor)
	}
	if c.KeepSnapshots < 2 {
		refuse("%s is %d: it must be at least 2, for one may be damaged", c.name("keep-snapshots"), c.KeepSnapshots)
	}
	if c.MaxJournalBytes < minJournalBytes {
		refuse("%s is %d: it must be at least %d, for two segments", c.name("max-journal-bytes"), c.MaxJournalBytes, int64(minJournalBytes))
	}
	if c.FailOpen && c.NoSnapshots && !c.MemoryOnly && c.Follow == "" {
		refuse("%s and %s contradict each other: what the journal missed is made good by a snapshot", c.name("fail-open"), c.name("no-snapshots"))
	}
	return errors.Join(errs...)
}

// validateBackend refuses what contradicts itself about where to ship to and
// what to follow.
func (c *Config) validateBackend(refuse func(format string, args ...any)) {
	if c.MemoryOnly && c.Backend != "" {
		refuse("%s and %s contradict each other: what is in memory alone is not shipped", c.name("memory-only"), c.name("backend"))
	}
	if c.RequireBackend && c.Backend == "" && c.Follow == "" {
		refuse("%s needs %s", c.name("require-backend"), c.name("backend"))
	}
	if c.Follow == "" {
		return
	}
	if c.Backend != "" {
		refuse("%s and %s contradict each other: a follower ships nothing, and once it is promoted it ships to what it followed", c.name("follow"), c.name("backend"))
	}
	if c.MemoryOnly {
		refuse("%s and %s contradict each other: a follower without --dir persists nothing already", c.name("follow"), c.name("memory-only"))
	}
	if c.Resources != "" {
		refuse("%s and %s contradict each other: a follower takes no updates; give the files to the writer", c.name("follow"), c.name("resources"))
	}
}
