package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/internal/envoytest"
)

const (
	accessKey = "test"
	secretKey = "testtest1"
	bucket    = "bucket"

	// startTimeout bounds the start of a server.
	startTimeout = time.Minute
)

// The transports between the client and a server.
const (
	plain = "HTTP"
	https = "TLS"
	// proxied is TLS that a proxy terminates, for a server without TLS.
	proxied = "TLS of a proxy"
)

// server is a kind of server.
type server struct {
	name       string // as scripts/deps installs it
	transports []string
	// command returns the arguments that start it. The data directory contains an empty
	// directory named like the bucket.
	command func(l launch) ([]string, error)
	tests   tests
	// createBucket is set for servers without an option or a directory for the bucket.
	createBucket bool
	// anyAddress is set for a server that listens on all addresses, whatever it is told.
	anyAddress bool
}

// tests are the compiled tests of a driver, with its conformance suite.
type tests struct {
	binary, run string
	variable    string // of the environment, with the URL
	path        string // of that URL
}

var (
	s3Tests  = tests{binary: "s3.test", run: "^TestConformanceElsewhere$", variable: "XDSWAL_TEST_S3"}
	gcsTests = tests{binary: "gcs.test", run: "^TestConformance$", variable: "XDSWAL_GCS_ENDPOINT"}
	// azurite has one account.
	azureTests = tests{binary: "azure.test", run: "^TestConformance$", variable: "XDSWAL_AZURE_ENDPOINT", path: "/devstoreaccount1"}
)

// launch is what a command needs to know.
type launch struct {
	tools string
	dir   string // for files of the server
	data  string // contains the bucket
	addr  string
	cert  *certificate // nil for plain HTTP
}

func (l launch) bin(name string) string { return filepath.Join(l.tools, "bin", name) }

// withTLS returns args, followed by others if the server serves TLS.
func (l launch) withTLS(args []string, more func(certificate) []string) []string {
	if l.cert == nil {
		return args
	}
	return append(args, more(*l.cert)...)
}

func servers() []server {
	both := []string{plain, https}
	return []server{
		{name: "versitygw", transports: both, tests: s3Tests, command: versitygw},
		{name: "minio", transports: both, tests: s3Tests, command: minio},
		{name: "rclone", transports: both, tests: s3Tests, command: rclone},
		{name: "moto", transports: both, tests: s3Tests, command: moto, createBucket: true},
		{name: "s3mock", transports: both, tests: s3Tests, command: s3mock, anyAddress: true},
		{name: "s3proxy", transports: both, tests: s3Tests, command: s3proxy},
		{name: "gofakes3", transports: []string{plain, proxied}, tests: s3Tests, command: gofakes3},
		{name: "fake-gcs-server", transports: []string{plain}, tests: gcsTests, command: fakeGCS},
		{name: "azurite", transports: []string{plain}, tests: azureTests, command: azurite},
	}
}

func versitygw(l launch) ([]string, error) {
	args := []string{"env", "ROOT_ACCESS_KEY=" + accessKey, "ROOT_SECRET_KEY=" + secretKey, l.bin("versitygw"), "--port", l.addr, "--keep-alive", "--quiet"}
	args = l.withTLS(args, func(c certificate) []string { return []string{"--cert", c.cert, "--key", c.key} })
	return append(args, "posix", l.data), nil
}

func minio(l launch) ([]string, error) {
	args := []string{
		"env", "MINIO_ROOT_USER=" + accessKey, "MINIO_ROOT_PASSWORD=" + secretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		l.bin("minio"), "server", "--quiet", "--address", l.addr,
	}
	args = l.withTLS(args, func(c certificate) []string { return []string{"--certs-dir", filepath.Dir(c.cert)} })
	return append(args, l.data), nil
}

func rclone(l launch) ([]string, error) {
	args := []string{l.bin("rclone"), "serve", "s3", "--config", "", "--addr", l.addr, "--auth-key", accessKey + "," + secretKey}
	args = l.withTLS(args, func(c certificate) []string { return []string{"--cert", c.cert, "--key", c.key} })
	return append(args, l.data), nil
}

func moto(l launch) ([]string, error) {
	host, port, err := net.SplitHostPort(l.addr)
	args := []string{filepath.Join(l.tools, "moto", "bin", "moto_server"), "-H", host, "-p", port}
	return l.withTLS(args, func(c certificate) []string { return []string{"-c", c.cert, "-k", c.key} }), err
}

// s3mock has two ports, of which the main one is configured to be that of the transport.
func s3mock(l launch) ([]string, error) {
	host, port, err := net.SplitHostPort(l.addr)
	args := []string{
		"java", "-jar", filepath.Join(l.tools, "s3mock", "s3mock-exec.jar"),
		"--server.address=" + host, "--server.port=" + port,
		"--com.adobe.testing.s3mock.http-port=0",
		"--com.adobe.testing.s3mock.store.root=" + l.data,
		"--com.adobe.testing.s3mock.store.initial-buckets=" + bucket,
	}
	if l.cert == nil {
		return append(args, "--server.ssl.enabled=false"), err
	}
	return append(args,
		"--server.ssl.key-store="+l.cert.keystore, "--server.ssl.key-store-type=PKCS12",
		"--server.ssl.key-store-password="+keystorePassword, "--server.ssl.key-password="+keystorePassword,
		"--server.ssl.key-alias="+keystoreAlias), err
}

func s3proxy(l launch) ([]string, error) {
	endpoint := "s3proxy.endpoint=http://" + l.addr
	if l.cert != nil {
		endpoint = "s3proxy.secure-endpoint=https://" + l.addr +
			"\ns3proxy.keystore-path=" + l.cert.keystore + "\ns3proxy.keystore-password=" + keystorePassword
	}
	// filesystem-nio2 is the backend that s3proxy's documentation recommends for files.
	config := endpoint + `
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity=` + accessKey + `
s3proxy.credential=` + secretKey + `
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir=` + l.data + `
jclouds.identity=unused
jclouds.credential=unused
`
	properties, quiet := filepath.Join(l.dir, "s3proxy.conf"), filepath.Join(l.dir, "logback.xml")
	err := errors.Join(
		os.WriteFile(properties, []byte(config), 0o600),
		os.WriteFile(quiet, []byte("<configuration/>"), 0o600))
	return []string{
		"java", "-Dlogback.configurationFile=" + quiet, "-cp", filepath.Join(l.tools, "s3proxy", "*"),
		"org.gaul.s3proxy.Main", "--properties", properties,
	}, err
}

func gofakes3(l launch) ([]string, error) {
	return []string{l.bin("gofakes3"), "-backend", "memory", "-host", l.addr, "-initialbucket", bucket, "-quiet"}, nil
}

func fakeGCS(l launch) ([]string, error) {
	host, port, err := net.SplitHostPort(l.addr)
	return []string{l.bin("fake-gcs-server"), "-backend", "memory", "-scheme", "http", "-host", host, "-port", port, "-external-url", "http://" + l.addr, "-log-level", "error"}, err
}

func azurite(l launch) ([]string, error) {
	host, port, err := net.SplitHostPort(l.addr)
	return []string{
		filepath.Join(l.tools, "node_modules", ".bin", "azurite-blob"), "--blobHost", host, "--blobPort", port,
		"--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
	}, err
}

// process is a running server.
type process struct {
	endpoint string // URL
	cmd      *exec.Cmd
	ended    chan struct{}
	proxy    *http.Server // or nil
}

// start starts a server and waits until it answers.
func (t *tester) start(ctx context.Context, srv server, transport, dir string) (*process, error) {
	addr, err := envoytest.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	tools, err := filepath.Abs(t.tools)
	if err != nil {
		return nil, err
	}
	l := launch{tools: tools, dir: dir, data: filepath.Join(dir, "data"), addr: addr}
	p := &process{endpoint: "http://" + addr, ended: make(chan struct{})}
	if transport == https {
		l.cert, p.endpoint = &t.cert, "https://"+addr
	}
	if err := os.MkdirAll(filepath.Join(l.data, bucket), 0o700); err != nil {
		return nil, err
	}
	args, err := srv.command(l)
	if err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = t.env, dir, output, output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	go func() {
		_ = p.cmd.Wait() // its end is what matters
		close(p.ended)
	}()
	if err := p.prepare(ctx, srv, transport, t.cert); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// prepare waits until the server answers, and creates the bucket and the proxy.
func (p *process) prepare(ctx context.Context, srv server, transport string, cert certificate) error {
	if err := p.wait(ctx); err != nil {
		return err
	}
	if srv.createBucket {
		status, err := request(ctx, http.MethodPut, p.endpoint+"/"+bucket)
		if err != nil {
			return fmt.Errorf("create the bucket: %w", err)
		}
		if status != http.StatusOK {
			return fmt.Errorf("create the bucket: got status %d, want 200", status)
		}
	}
	if transport == proxied {
		return p.terminateTLS(ctx, cert)
	}
	return nil
}

func (p *process) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		status, err := request(ctx, http.MethodGet, p.endpoint)
		if err == nil && status < http.StatusInternalServerError {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("start: it exited: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("start: no answer within %s", startTimeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// request makes an unsigned request and returns the status of the answer.
func request(ctx context.Context, method, url string) (int, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // Any answer suffices.
	}}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

// terminateTLS puts a proxy in front of the server, which passes requests on as they are.
func (p *process) terminateTLS(ctx context.Context, cert certificate) error {
	to, err := url.Parse(p.endpoint)
	if err != nil {
		return err
	}
	addr, err := envoytest.FreeAddr(ctx)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0) // The client reports what fails.
	p.proxy = &http.Server{
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          quiet,
		Handler: &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // the signature contains it
		}},
	}
	p.endpoint = "https://" + addr
	go func() { _ = p.proxy.ServeTLS(l, cert.cert, cert.key) }() // until stop closes it
	return nil
}

// stop kills the server and waits for its end.
func (p *process) stop() {
	if p.proxy != nil {
		p.proxy.Close()
	}
	_ = p.cmd.Process.Kill() // fails only after its end
	<-p.ended
}

// url returns the backend URL of a prefix.
func (p *process) url(prefix string) string {
	u := url.URL{Scheme: "s3", Host: bucket, Path: prefix}
	u.RawQuery = url.Values{"endpoint": {p.endpoint}, "region": {"us-east-1"}, "path_style": {"true"}}.Encode()
	return u.String()
}
