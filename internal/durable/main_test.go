package durable_test

import (
	"os"
	"testing"
)

// TestMain lets tests start this binary as another process.
func TestMain(m *testing.M) {
	if path := os.Getenv(lockEnv); path != "" {
		holdLock(path)
		return
	}
	if dir := os.Getenv(traceEnv); dir != "" {
		traced(dir)
		return
	}
	os.Exit(m.Run())
}
