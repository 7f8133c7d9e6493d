//go:build !race

package wal_test

// raceEnabled makes slow tests do less.
const raceEnabled = false
