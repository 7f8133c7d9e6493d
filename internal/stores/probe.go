package main

import (
	"context"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
)

// probe returns what the driver finds out about a store.
func probe(ctx context.Context, url string) string {
	b, err := backendurl.Open(ctx, url)
	if err != nil {
		return oneLine(err.Error())
	}
	strong, err := b.(backends.ConditionalCreator).ProbeConditionalCreate(ctx)
	switch {
	case err != nil:
		return oneLine(err.Error())
	case strong:
		return "strong"
	}
	if w, ok := b.(interface{ Weakness() string }); ok {
		return "weak: " + w.Weakness()
	}
	return "weak"
}
