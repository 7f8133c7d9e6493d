//go:build race

package wal_test

// raceEnabled tells slow tests to do less.
const raceEnabled = true
