// Package e2e tests the daemon as a process: with real xDS clients, kill -9, and an oracle
// that contains no xdswal code.
//
// The environment configures the kill loop:
//
//	XDSWAL_E2E_KILLS  number of kills (default 50; 10 with -short)
//	XDSWAL_E2E_SEED   seed of the random choices (default: random, logged)
package e2e
