// Package e2e tests the daemon from outside: real xDS clients, kill -9, and an
// account of what was acknowledged that no xdswal code keeps.
//
// The environment changes how long the kill loop runs:
//
//	XDSWAL_E2E_KILLS  how often the daemon is killed (default 50; 10 with -short)
//	XDSWAL_E2E_SEED   the seed of what happens by chance (default: drawn and logged)
package e2e
