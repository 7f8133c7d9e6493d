// Package xdscache implements go-control-plane's caches on the journal of a store.
//
// A store creates them: see the methods SnapshotCache and LinearCache of
// xdswal.Store. An update is compared with the resources of its node, and the
// difference is queued as one event. When the event is durable, the open watches are
// answered from the new state.
//
// This package imports no journal, no backend and no file: internal/cachelog
// defines what it needs of the store.
//
// Invariants:
//   - No client receives a resource before its event is durable.
//   - The updates of one node are journaled and served in one order. Updates of
//     different nodes run in parallel.
//   - After an update has returned, each open watch that it concerns has its response, or
//     has it as soon as its client reads. No update, other client or lock waits for a
//     client.
//   - A [Resource] is served as the bytes that were journaled. A restart decodes and
//     hashes nothing, and clients get the same bytes, and in the delta protocol the
//     same versions, as before.
//   - No error, log or text of a resource contains its body.
//
// # Rules for callers
//
// An update marshals the messages that it sets, on all processors, and compares their
// content with what the node has: a message that was changed in place and is set again is
// a change. Do not change a message during the call. A caller that never changes a message
// after it has set it creates the cache [WithImmutableMessages], which is much faster.
//
// The VersionMap of a snapshot has the versions of its resources in the delta protocol, if
// the caller chose them: they are served, and are kept over a restart. Another version is
// a change, also of the same content. Without one, a new content gets a hash of it as
// version, and the same content keeps the version that it has. The hashes that
// go-control-plane fills a VersionMap with count as none.
//
// Options panic if their arguments are invalid, because the functions that create a
// cache return no error.
package xdscache

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/cachelog"
)

// SnapshotOption is an option of a snapshot cache.
type SnapshotOption interface{ applyToSnapshot(*options) }

// LinearOption is an option of a linear cache.
type LinearOption interface{ applyToLinear(*options) }

// Option is an option of both kinds of caches.
type Option interface {
	SnapshotOption
	LinearOption
}

type option func(*options)

func (set option) applyToSnapshot(o *options) { set(o) }
func (set option) applyToLinear(o *options)   { set(o) }

type options struct {
	name    string
	sources *sources // of a cache with immutable messages
	// Of a snapshot cache.
	typeURLs     []string
	heartbeatCtx context.Context
	heartbeat    time.Duration
	// Of a linear cache.
	logger log.Logger
}

// WithName sets the cache's name among the caches of its kind in the store. The
// cache finds its resources by this name after a restart. The default is the empty
// name for a snapshot cache, and the type URL for a linear cache. WithName panics if
// the name is not valid UTF-8 or contains a zero byte.
func WithName(name string) Option {
	if !isText(name) {
		panic(fmt.Sprintf("xdscache: cache name %q is not valid UTF-8 or contains a zero byte", name))
	}
	return option(func(o *options) { o.name = name })
}

// WithImmutableMessages promises that no message is changed after it was passed to the
// cache. Then a message that is set again under the same address counts as unchanged, and
// is not marshaled again, in whatever node it is set. The message that a resource was
// marshaled from stays in memory until the resource changes.
func WithImmutableMessages() Option { return option(func(o *options) { o.sources = newSources() }) }

// WithTypeURLs names the types, other than the ten that go-control-plane knows, that
// the caller's own implementations of ResourceSnapshot contain. A ResourceSnapshot
// cannot list its types; a type that is not named here becomes durable when the first
// client requests it. WithTypeURLs panics if a type URL is empty, is not valid UTF-8, or
// contains a zero byte.
func WithTypeURLs(urls ...string) SnapshotOption {
	for _, url := range urls {
		checkTypeURL(url)
	}
	return option(func(o *options) { o.typeURLs = append(o.typeURLs, urls...) })
}

func checkTypeURL(url string) {
	if url == "" || !isText(url) {
		panic(fmt.Sprintf("xdscache: type URL %q is empty, is not valid UTF-8, or contains a zero byte", url))
	}
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// WithHeartbeat sends heartbeats for resources with a TTL, every interval until ctx
// is done, as cachev3.NewSnapshotCacheWithHeartbeating does, and in the delta protocol
// too. A SotW heartbeat of a type of which Envoy deletes what a response does not contain
// has all its resources. WithHeartbeat panics if ctx is nil or the interval is not
// positive.
func WithHeartbeat(ctx context.Context, interval time.Duration) SnapshotOption {
	if ctx == nil {
		panic("xdscache: heartbeat context is nil")
	}
	if interval <= 0 {
		panic(fmt.Sprintf("xdscache: heartbeat interval is %s, want more than 0; omit WithHeartbeat to send no heartbeats", interval))
	}
	return option(func(o *options) { o.heartbeatCtx, o.heartbeat = ctx, interval })
}

// WithLogger sets the logger of a linear cache; nil means none. A snapshot cache gets its
// logger as a parameter.
func WithLogger(l log.Logger) LinearOption {
	return option(func(o *options) {
		if l != nil {
			o.logger = l
		}
	})
}

// store is what a cache uses of its store.
type store struct {
	cachelog.Log
	cachelog.Config
}

func newStore(l cachelog.Log, cfg cachelog.Config) *store {
	if cfg.CommitTimeout == 0 {
		cfg.CommitTimeout = cachelog.DefaultCommitTimeout
	}
	if cfg.OnError == nil {
		cfg.OnError = func(string, string, error) {}
	}
	return &store{l, cfg}
}
