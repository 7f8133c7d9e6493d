package s3test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proxy is a network proxy in front of a Server, with faults that a test adds. It stops
// at the end of its test.
type Proxy struct {
	Endpoint string // URL, like Server.Endpoint

	t      testing.TB
	server *Server
	api    string // URL of the proxy within the API of toxiproxy
}

// Toxic is a fault of the connections through a Proxy.
type Toxic struct {
	kind, stream string
	attributes   map[string]int64
}

// Bandwidth limits the bytes that the server sends to rate KB per second.
func Bandwidth(rate int64) Toxic {
	return Toxic{"bandwidth", "downstream", map[string]int64{"rate": rate}}
}

// LimitData closes a connection after the server has sent that many bytes on it.
func LimitData(bytes int64) Toxic {
	return Toxic{"limit_data", "downstream", map[string]int64{"bytes": bytes}}
}

// LoseAnswers passes requests to the server, and closes the connection before the
// answer.
func LoseAnswers() Toxic { return LimitData(0) }

// ResetPeer resets a connection after that time.
func ResetPeer(after time.Duration) Toxic {
	return Toxic{"reset_peer", "downstream", map[string]int64{"timeout": after.Milliseconds()}}
}

// Hang drops all bytes that the server sends, and keeps connections open.
func Hang() Toxic { return Toxic{"timeout", "downstream", map[string]int64{"timeout": 0}} }

// HangUploads drops all bytes to the server, and keeps connections open.
func HangUploads() Toxic { return Toxic{"timeout", "upstream", map[string]int64{"timeout": 0}} }

// Proxy starts a proxy in front of the server.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	proc := startProcess(t, nil, binary(t, "toxiproxy-server"), "-host", "127.0.0.1", "-port", port)
	t.Cleanup(proc.kill)
	api := "http://127.0.0.1:" + port
	proc.waitFor(t, api+"/version")

	p := &Proxy{t: t, server: s}
	upstream, err := url.Parse(s.Endpoint)
	require.NoError(t, err)
	var created struct{ Listen string }
	p.call(http.MethodPost, api+"/proxies", map[string]any{
		"name": "s3", "listen": "127.0.0.1:0", "upstream": upstream.Host, "enabled": true,
	}, &created)
	p.api = api + "/proxies/s3"
	p.Endpoint = upstream.Scheme + "://" + created.Listen
	return p
}

// URL returns the backend URL of a prefix through the proxy.
func (p *Proxy) URL(prefix string) string { return backendURL(p.server, p.Endpoint, prefix) }

// Add adds a fault to all connections, including existing ones, until remove is called.
// It blocks while a client does not read the bytes that the server sent.
func (p *Proxy) Add(toxic Toxic) (remove func()) {
	p.t.Helper()
	name := toxic.kind + "_" + toxic.stream
	p.call(http.MethodPost, p.api+"/toxics", map[string]any{
		"name": name, "type": toxic.kind, "stream": toxic.stream, "attributes": toxic.attributes,
	}, nil)
	return func() { p.call(http.MethodDelete, p.api+"/toxics/"+name, nil, nil) }
}

// call sends a request to the API of toxiproxy.
func (p *Proxy) call(method, target string, body, answer any) {
	p.t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), startTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(raw))
	require.NoError(p.t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	require.Less(p.t, res.StatusCode, 300, "%s %s: %s", method, target, content)
	if answer != nil {
		require.NoError(p.t, json.Unmarshal(content, answer))
	}
}
