package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/xdswal/xdswal/xdsserver"
)

// xdsServer serves ADS and the services of each type, with the state of the world
// and the delta protocol.
type xdsServer struct {
	grpc   *grpc.Server
	cancel context.CancelFunc
}

func newXDSServer(c Config, addr net.Addr, creds credentials.TransportCredentials, cache cachev3.Cache, opt xdsserver.Options) *xdsServer {
	if c.XDSCert == "" && !isLoopback(addr) {
		opt.Logger.Warn("xDS is served in plain text on an address that is not loopback, so private keys are sent over the network; see --xds-tls-cert", "addr", c.XDSAddr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := grpc.NewServer(append(xdsserver.GRPCOptions(), grpc.Creds(creds))...)
	xdsserver.NewServer(ctx, cache, nil, opt).Register(g)
	return &xdsServer{grpc: g, cancel: cancel}
}

// transport returns the credentials of the xDS server.
func transport(c Config) (credentials.TransportCredentials, error) {
	if c.XDSCert == "" {
		return insecure.NewCredentials(), nil
	}
	cert, err := tls.LoadX509KeyPair(c.XDSCert, c.XDSKey)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: load the xDS server's certificate: %w", c.name("xds-tls-cert"), c.name("xds-tls-key"), err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if c.XDSClientCA == "" {
		return credentials.NewTLS(conf), nil
	}
	pem, err := os.ReadFile(c.XDSClientCA)
	if err != nil {
		return nil, fmt.Errorf("%s: load the xDS clients' authorities: %w", c.name("xds-tls-client-ca"), err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: load the xDS clients' authorities: %s contains no PEM certificate", c.name("xds-tls-client-ca"), c.XDSClientCA)
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	return credentials.NewTLS(conf), nil
}

// serve serves on l. The channel receives the error if that ends before stop.
func (s *xdsServer) serve(l net.Listener) <-chan error {
	failed := make(chan error, 1)
	go func() {
		if err := s.grpc.Serve(l); err != nil {
			failed <- err
		}
	}()
	return failed
}

// stop closes all streams, which clients keep open. Clients keep their
// configuration.
func (s *xdsServer) stop() {
	s.cancel()
	s.grpc.Stop()
}

// xdsLogger is the daemon's logger for go-control-plane's cache. It logs the info
// level, which has a message for each request of each client, as debug.
type xdsLogger struct {
	*slog.Logger
}

func (l xdsLogger) Debugf(string, ...any)             {}
func (l xdsLogger) Infof(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }
func (l xdsLogger) Warnf(format string, args ...any)  { l.log(slog.LevelWarn, format, args) }
func (l xdsLogger) Errorf(format string, args ...any) { l.log(slog.LevelError, format, args) }

func (l xdsLogger) log(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.Enabled(ctx, level) {
		l.LogAttrs(ctx, level, "go-control-plane", slog.String("message", fmt.Sprintf(format, args...)))
	}
}
