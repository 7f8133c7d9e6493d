package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	_ "google.golang.org/grpc/xds" // resolves xds:///
)

// Of a gRPC client; those of grpcjs/client.js are the same.
const (
	callTimeout = 10 * time.Second
	callPause   = 2 * time.Millisecond
)

// callStats is what a gRPC client tells of its calls.
type callStats struct {
	Calls      int            `json:"calls"`
	Failed     int            `json:"failed"`
	FirstError string         `json:"first_error"`
	ByPeer     map[string]int `json:"by_peer"`
}

// runGRPCClient is a process of its own, because a process has one xDS
// bootstrap and one xDS client: it calls the health service of the target, one
// call after the other. For each line on its standard input it writes one with
// what came of the calls; it ends with its input.
func runGRPCClient(target string) int {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close()
	var mu sync.Mutex
	stats := callStats{ByPeer: map[string]int{}}
	go func() {
		for {
			who, err := check(healthv1.NewHealthClient(conn))
			mu.Lock()
			stats.Calls++
			if err != nil {
				stats.Failed++
				if stats.FirstError == "" {
					stats.FirstError = err.Error()
				}
			} else {
				stats.ByPeer[who]++
			}
			mu.Unlock()
			<-time.After(callPause)
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		mu.Lock()
		err := json.NewEncoder(os.Stdout).Encode(stats)
		mu.Unlock()
		if err != nil {
			return 1
		}
	}
	return 0
}

// check makes one call, which does not wait for a connection that has failed,
// and returns who answered.
func check(client healthv1.HealthClient) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var p peer.Peer
	resp, err := client.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&p))
	if err != nil {
		return "", err
	}
	if resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("answered %s", resp.GetStatus())
	}
	return p.Addr.String(), nil
}
