package daemon

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/follow"
	"github.com/xdswal/xdswal/internal/option"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// Config contains the values of the daemon's flags.
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

	// Name returns the name of a setting in an error, given its flag. Nil returns
	// the flag.
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
	f.StringVar(&c.Dir, "dir", "", "data directory; created if it does not exist (required without --follow)")
	f.StringVar(&c.XDSAddr, "xds-addr", "127.0.0.1:18000", "address of the xDS server (gRPC)")
	f.StringVar(&c.XDSCert, "xds-tls-cert", "", "PEM file with the xDS server's certificate chain; without it xDS is served in plain text")
	f.StringVar(&c.XDSKey, "xds-tls-key", "", "PEM file with the xDS server's private key")
	f.StringVar(&c.XDSClientCA, "xds-tls-client-ca", "", "PEM file with the authorities that xDS clients need a certificate of; without it any client may connect")
	f.StringVar(&c.AdminAddr, "admin-addr", "127.0.0.1:19000", "address of the admin HTTP interface; it has no authentication, so use a loopback address")
	f.StringVar(&c.Backend, "backend", "", "URL to ship batches of events and snapshots to, for example s3://bucket/prefix?endpoint=https://s3.example&region=eu-west-1&path_style=true, with credentials as the AWS SDK finds them, or file:///mnt/backup/xdswal; none by default")
	f.Var(interval(&c.ShipInterval, 0), "ship-interval", "minimum time between two batches: if the machine is lost, the events since the last batch are lost; off ships only snapshots; 0 is "+ship.DefaultInterval.String()+", or off with a file:// backend, which may be on the same machine")
	f.BoolVar(&c.RequireBackend, "require-backend", false, "fail to start if the backend cannot be reached; otherwise the local state is served with a warning, and the backend is claimed once it can be reached")
	f.DurationVar(&c.BackendTimeout, "backend-timeout", directory.DefaultBackendTimeout, "how long the start waits for the backend if the local data is complete")
	f.StringVar(&c.Follow, "follow", "", "URL of another daemon's --backend: serve what that daemon ships, and reject updates until POST /v1/promote makes this daemon the writer, which needs --dir")
	f.DurationVar(&c.FollowInterval, "follow-interval", follow.DefaultInterval, "time between two reads of the backend by a follower")
	f.StringVar(&c.Resources, "resources", "", "directory of <node>.yaml and <node>.json files with Envoy resources, loaded at start and when they change")
	f.BoolVar(&c.ADS, "ads", false, "no effect, accepted for existing command lines: responses are always in order, and none is delayed until its request names all resources")
	f.DurationVar(&c.Heartbeat, "heartbeat-interval", 0, "interval at which the TTLs of resources are renewed; 0 renews none")
	f.StringVar(&c.Sync, "sync", journal.SyncAlways.String(), "when an update is durable: always (before it returns), never, or a duration (at most that long after it returned)")
	f.Var(interval(&c.CompactInterval, compact.DefaultInterval), "compact-interval", "time between snapshots; off writes them only when the events since the last one take much space")
	f.IntVar(&c.KeepSnapshots, "keep-snapshots", compact.DefaultKeepSnapshots, "number of snapshots to keep, at least 2")
	f.Var(interval(&c.KeepFor, compact.DefaultKeepFor), "keep-for", "also keep all snapshots up to this age, none with off; any moment since the oldest kept snapshot can be restored")
	f.BoolVar(&c.NoPrune, "no-prune", false, "delete nothing from the backend, for credentials without permission to delete")
	f.Int64Var(&c.MaxJournalBytes, "max-journal-bytes", wal.DefaultMaxBytes, "maximum size of the journal, at least two segments of "+strconv.Itoa(wal.DefaultSegmentBytes>>20)+" MiB")
	f.Int64Var(&c.MaxBodyBytes, "max-body-bytes", admin.DefaultMaxBody, "maximum size of an admin request's body and of a resource file")
	f.DurationVar(&c.CommitTimeout, "commit-timeout", cachelog.DefaultCommitTimeout, "how long an update waits for its commit")
	f.DurationVar(&c.ShutdownTimeout, "shutdown-timeout", 30*time.Second, "how long a shutdown waits for the last snapshot and its shipping")
	f.BoolVar(&c.FailOpen, "fail-open", false, "apply updates that the journal cannot store, and make them durable with a snapshot as soon as possible")
	f.BoolVar(&c.NoSnapshots, "no-snapshots", false, "write no snapshots, only the journal")
	f.BoolVar(&c.MemoryOnly, "memory-only", false, "store nothing on disk")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
}

// intervalValue is a flag with a duration that can be turned off.
type intervalValue time.Duration

func interval(p *time.Duration, byDefault time.Duration) *intervalValue {
	*p = byDefault
	return (*intervalValue)(p)
}

func (v *intervalValue) String() string {
	if *v == xdswal.Off {
		return "off"
	}
	return time.Duration(*v).String()
}

func (v *intervalValue) Set(text string) error {
	if strings.EqualFold(text, "off") {
		*v = xdswal.Off
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a duration such as 10m, or off")
	}
	if d == xdswal.Off {
		d-- // only the word turns it off
	}
	*v = intervalValue(d)
	return nil
}

func (v *intervalValue) Type() string { return "duration" }

// options returns the settings of the store that flags set.
func (c *Config) options() xdswal.Options {
	return xdswal.Options{
		Dir:              c.Dir,
		MemoryOnly:       c.MemoryOnly,
		MaxJournalBytes:  c.MaxJournalBytes,
		CommitTimeout:    c.CommitTimeout,
		FailOpen:         c.FailOpen,
		DisableSnapshots: c.NoSnapshots,
		CompactInterval:  c.CompactInterval,
		KeepSnapshots:    c.KeepSnapshots,
		KeepFor:          c.KeepFor,
		NoPrune:          c.NoPrune,
		ShipInterval:     c.ShipInterval,
		RequireBackend:   c.RequireBackend,
		BackendTimeout:   c.BackendTimeout,
		Follow:           c.Follow != "",
		FollowInterval:   c.FollowInterval,
	}
}

// flagOf maps the fields of xdswal.Options to the flags that set them.
var flagOf = map[string]string{
	"MaxJournalBytes": "max-journal-bytes",
	"CommitTimeout":   "commit-timeout",
	"CompactInterval": "compact-interval",
	"KeepSnapshots":   "keep-snapshots",
	"KeepFor":         "keep-for",
	"ShipInterval":    "ship-interval",
	"BackendTimeout":  "backend-timeout",
	"FollowInterval":  "follow-interval",
}

// validateOptions reports the settings that the store would reject, by their flags. Their
// combinations are validated by their flags too, since the backend is not open yet.
func (c *Config) validateOptions(reject func(format string, args ...any)) {
	opt := c.options()
	opt.Dir, opt.MemoryOnly, opt.Follow, opt.FailOpen = "unused", false, false, false
	for _, err := range option.Errors(opt.Validate()) {
		reject("%s %s", c.name(flagOf[err.Field]), err.Problem)
	}
}

// Validate returns an error for each setting that is invalid by itself or
// together with others.
func (c *Config) Validate() error {
	var errs []error
	reject := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	exclude := func(flag, other, reason string) {
		reject("%s and %s are mutually exclusive: %s", c.name(flag), c.name(other), reason)
	}
	if c.Dir == "" && !c.MemoryOnly && c.Follow == "" {
		reject("%s is missing: name a data directory, or use --memory-only", c.name("dir"))
	}
	c.validateOptions(reject)
	c.validateBackend(reject, exclude)
	if (c.XDSCert == "") != (c.XDSKey == "") {
		reject("%s and %s require each other", c.name("xds-tls-cert"), c.name("xds-tls-key"))
	}
	if c.XDSClientCA != "" && c.XDSCert == "" {
		reject("%s needs %s and %s", c.name("xds-tls-client-ca"), c.name("xds-tls-cert"), c.name("xds-tls-key"))
	}
	if c.MaxBodyBytes < 1 {
		reject("%s is %d: it must be positive", c.name("max-body-bytes"), c.MaxBodyBytes)
	}
	if c.ShutdownTimeout <= 0 {
		reject("%s is %s: it must be positive", c.name("shutdown-timeout"), c.ShutdownTimeout)
	}
	if c.Heartbeat < 0 {
		reject("%s is %s: it must not be negative", c.name("heartbeat-interval"), c.Heartbeat)
	}
	if c.FailOpen && c.NoSnapshots && !c.MemoryOnly {
		exclude("fail-open", "no-snapshots", "a snapshot makes the updates durable that the journal could not store")
	}
	return errors.Join(errs...)
}

// validateBackend validates the settings of shipping and following.
func (c *Config) validateBackend(reject func(format string, args ...any), exclude func(flag, other, reason string)) {
	if c.MemoryOnly && c.Backend != "" {
		exclude("memory-only", "backend", "a store in memory ships nothing")
	}
	if c.RequireBackend && c.Backend == "" && c.Follow == "" {
		reject("%s needs %s", c.name("require-backend"), c.name("backend"))
	}
	if c.Follow == "" {
		return
	}
	if c.Backend != "" {
		exclude("follow", "backend", "a follower ships nothing; once promoted, it ships to the backend that it followed")
	}
	if c.MemoryOnly {
		exclude("follow", "memory-only", "a follower without --dir already stores nothing on disk")
	}
	if c.Resources != "" {
		exclude("follow", "resources", "a follower rejects updates; load the files in the writer")
	}
}
