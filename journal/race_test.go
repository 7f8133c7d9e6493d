//go:build race

package journal_test

// raceEnabled tells slow tests to do less.
const raceEnabled = true
