// Package e2e tests the daemon as a process: with real xDS clients, kill -9, and an oracle
// that contains no xdswal code.
//
// A real Envoy runs in the tests whose names begin with TestEnvoy, if it is installed.
// TestEnvoyUpstreamSuite has no daemon: go-control-plane's test driver embeds the library, as do
// grpc-go's tests in TestGRPCGoUpstream.
//
// The environment configures the loops and suites:
//
//	XDSWAL_E2E_KILLS          number of kills (default 50; 10 with -short)
//	XDSWAL_E2E_ENVOY_CRASHES  number of crashes in each of the four loops of
//	                          TestEnvoyCrashLoop (default 25; 5 with -short)
//	XDSWAL_E2E_ENVOY_SWAPS    number of swaps over each protocol (default 10)
//	XDSWAL_E2E_GRPCGO         a version of grpc-go, all of whose xDS tests TestGRPCGoUpstream
//	                          runs (default: those of three packages of go.mod's version)
//	XDSWAL_E2E_SEED           seed of the random choices (default: random, logged)
package e2e
