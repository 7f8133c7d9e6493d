//go:build race

package e2e

// raceEnabled makes the daemon be built with the race detector too.
const raceEnabled = true
