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

// Settings of a gRPC client, equal to those of grpcjs/client.js.
const (
	callTimeout = 10 * time.Second
	callPause   = 2 * time.Millisecond
)

// callStats are the statistics of a gRPC client.
type callStats struct {
	Calls      int            `json:"calls"`
	Failed     int            `json:"failed"`
	FirstError string         `json:"first_error"`
	ByPeer     map[string]int `json:"by_peer"`
}

// runGRPCClient runs in its own process, because a process has one xDS bootstrap and one
// xDS client. It calls the health service of the target in a loop. For each line on its
// standard input it writes a line with its statistics. It exits at the end of its input.
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
			peer, err := check(healthv1.NewHealthClient(conn))
			mu.Lock()
			stats.Calls++
			if err != nil {
				stats.Failed++
				if stats.FirstError == "" {
					stats.FirstError = err.Error()
				}
			} else {
				stats.ByPeer[peer]++
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

// check makes one call, which fails at once if the connection has failed, and returns the
// address of the server.
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
