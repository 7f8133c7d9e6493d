//go:build !race

package boltpages_test

const raceEnabled = false
