package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	secret  = "c2VjcmV0LXByaXZhdGUta2V5"
	maxBody = 64 << 10
)

// logs is a log that is read while it is written.
type logs = logtest.Buffer

// daemon is the interface in front of a real store.
type daemon struct {
	t       *testing.T
	store   *xdswal.Store
	cache   *xdscache.SnapshotCache
	handler *admin.Handler
	server  *httptest.Server
	logs    *logs
	// sequence is what the store must be at when the test ends.
	sequence uint64
}

func start(t *testing.T, opt xdswal.Options) *daemon {
	t.Helper()
	if opt.Dir == "" && !opt.MemoryOnly {
		opt.Dir = t.TempDir()
	}
	return startIn(t, opt)
}

// startIn is start in the directory that the options say, which may be none.
func startIn(t *testing.T, opt xdswal.Options) *daemon {
	t.Helper()
	s, err := xdswal.Open(t.Context(), opt)
	require.NoError(t, err)
	d := &daemon{t: t, store: s, cache: s.SnapshotCache(false, cachev3.IDHash{}, nil), logs: &logs{}}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics\n") })
	d.handler = admin.New(maxBody, metrics, true, slog.New(slog.NewTextHandler(d.logs, nil)))
	d.handler.Ready(admin.Service{Store: s, Cache: d.cache, Context: context.Background()})
	d.server = httptest.NewServer(d.handler)
	t.Cleanup(func() {
		d.server.Close()
		require.EqualValues(t, d.sequence, s.State().Sequence(), "nothing but what succeeded was journaled")
		require.NotContains(t, d.logs.String(), secret)
		s.Close(context.Background())
	})
	return d
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (d *daemon) do(method, path string, body io.Reader) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.server.URL+path, body)
	require.NoError(d.t, err)
	return d.send(req)
}

func (d *daemon) send(req *http.Request) answer {
	d.t.Helper()
	resp, err := d.server.Client().Do(req)
	require.NoError(d.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// ok makes a request that must succeed, and returns its JSON.
func (d *daemon) ok(method, path, body string) map[string]any {
	d.t.Helper()
	a := d.do(method, path, strings.NewReader(body))
	require.Equal(d.t, http.StatusOK, a.status, "%s", a.body)
	require.Equal(d.t, "application/json", a.header.Get("Content-Type"))
	var out map[string]any
	require.NoError(d.t, json.Unmarshal([]byte(a.body), &out))
	return out
}

// set makes a request that must be journaled.
func (d *daemon) set(method, path, body string) {
	d.t.Helper()
	d.sequence++
	require.EqualValues(d.t, d.sequence, d.ok(method, path, body)["seq"])
}

// refused wants an answer to be an error with a reason.
func (d *daemon) refused(a answer, status int, reason, message string) {
	d.t.Helper()
	require.Equal(d.t, status, a.status, "%s", a.body)
	require.Equal(d.t, "application/json", a.header.Get("Content-Type"))
	var out struct {
		Error struct{ Reason, Message string }
	}
	require.NoError(d.t, json.Unmarshal([]byte(a.body), &out), "%s", a.body)
	require.Equal(d.t, reason, out.Error.Reason, "%s", a.body)
	require.Contains(d.t, out.Error.Message, message)
	require.NotContains(d.t, a.body, secret)
	require.NotContains(d.t, a.body, "failed to")
}

func body(version string, names ...string) string {
	var resources []string
	for _, n := range names {
		resources = append(resources, fmt.Sprintf(`{"@type":%q,"name":%q}`, resourcev3.ClusterType, n))
	}
	return fmt.Sprintf(`{"version":%q,"resources":[%s]}`, version, strings.Join(resources, ","))
}

func secretBody(version string) string {
	return fmt.Sprintf(`{"version":%q,"resources":[{"@type":%q,"name":"key","tls_certificate":{"private_key":{"inline_string":%q}}}]}`,
		version, resourcev3.SecretType, secret)
}

func TestANodesLife(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/front/snapshot", body("1", "a", "b"))
	// The same again changes nothing, and is as durable.
	require.EqualValues(t, 1, d.ok("PUT", "/v1/nodes/front/snapshot", body("1", "a", "b"))["seq"])
	d.set("PUT", "/v1/nodes/back/snapshot", "version: \"7\"\nresources:\n- {\"@type\": "+resourcev3.ClusterType+", name: c, connect_timeout: 1s}\n")

	doc, err := resourcefile.Parse([]byte(d.do("GET", "/v1/nodes/front/snapshot", nil).body))
	require.NoError(t, err)
	require.Equal(t, "1", doc.Version)
	require.Len(t, doc.Resources, 2)

	d.set("PATCH", "/v1/nodes/front/resources", fmt.Sprintf(
		`{"version":"2","upsert":[{"@type":%[1]q,"name":"c"}],"delete":[{"type_url":%[1]q,"name":"a"}]}`, resourcev3.ClusterType))
	doc, err = resourcefile.Parse([]byte(d.do("GET", "/v1/nodes/front/snapshot", nil).body))
	require.NoError(t, err)
	require.Equal(t, "2", doc.VersionOf(resourcev3.ClusterType))
	require.Equal(t, []string{"b", "c"}, []string{doc.Resources[0].Name, doc.Resources[1].Name})

	nodes := d.ok("GET", "/v1/nodes", "")["nodes"].([]any)
	require.Len(t, nodes, 2)
	require.Equal(t, "back", nodes[0].(map[string]any)["node"])
	front := nodes[1].(map[string]any)
	require.EqualValues(t, 3, front["seq"])
	require.EqualValues(t, 2, front["resources"])
	require.Equal(t, map[string]any{"version": "2", "resources": 2.0}, front["types"].(map[string]any)[resourcev3.ClusterType])

	d.set("DELETE", "/v1/nodes/front/snapshot", "")
	d.refused(d.do("GET", "/v1/nodes/front/snapshot", nil), http.StatusNotFound, "unknown_node", `node "front" has no snapshot`)
	// To delete what is not there is to have it deleted.
	d.ok("DELETE", "/v1/nodes/front/snapshot", "")
}

func TestYAMLAnswers(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", secretBody("1"))
	a := d.do("GET", "/v1/nodes/n/snapshot?format=yaml", nil)
	require.Equal(t, "application/yaml", a.header.Get("Content-Type"))
	require.True(t, strings.HasPrefix(a.body, "version: \"1\"\n"))
	require.Contains(t, a.body, secret, "who asks gets it")
	req, err := http.NewRequestWithContext(t.Context(), "GET", d.server.URL+"/v1/nodes/n/snapshot", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/yaml")
	require.Equal(t, a.body, d.send(req).body)
	require.EqualValues(t, 1, d.ok("PUT", "/v1/nodes/n/snapshot", a.body)["seq"], "what is read can be written")
}

func TestPages(t *testing.T) {
	d := start(t, xdswal.Options{})
	for i := range 5 {
		d.set("PUT", fmt.Sprintf("/v1/nodes/n%d/snapshot", i), body("1", "a"))
	}
	var names []string
	after := ""
	for range 3 {
		page := d.ok("GET", "/v1/nodes?limit=2&after="+after, "")
		for _, n := range page["nodes"].([]any) {
			names = append(names, n.(map[string]any)["node"].(string))
		}
		after, _ = page["next"].(string)
	}
	require.Empty(t, after)
	require.Equal(t, []string{"n0", "n1", "n2", "n3", "n4"}, names)

	var seqs []float64
	from := 0.0
	for range 3 {
		page := d.ok("GET", fmt.Sprintf("/v1/events?limit=2&from=%.0f", from), "")
		for _, e := range page["events"].([]any) {
			seqs = append(seqs, e.(map[string]any)["seq"].(float64))
		}
		from, _ = page["next"].(float64)
	}
	require.Zero(t, from)
	require.Equal(t, []float64{1, 2, 3, 4, 5}, seqs)
	require.Empty(t, d.ok("GET", "/v1/events?from=6", "")["events"])

	for _, limit := range []string{"0", "-1", "10001", "x"} {
		d.refused(d.do("GET", "/v1/nodes?limit="+limit, nil), http.StatusBadRequest, "bad_limit", "1 to 10000")
		d.refused(d.do("GET", "/v1/events?limit="+limit, nil), http.StatusBadRequest, "bad_limit", "1 to 10000")
	}
	d.refused(d.do("GET", "/v1/events?from=x", nil), http.StatusBadRequest, "bad_sequence", "not a decimal number")
}

// A page of events is bounded by what is in them too.
func TestPagesOfLargeEvents(t *testing.T) {
	d := start(t, xdswal.Options{})
	var names []string
	for i := range 800 {
		names = append(names, fmt.Sprint("c", i))
	}
	for i := range 30 {
		d.set("PUT", "/v1/nodes/n/snapshot", body(fmt.Sprint(i), names...))
		d.set("DELETE", "/v1/nodes/n/snapshot", "")
	}
	page := d.ok("GET", "/v1/events", "")
	require.NotZero(t, page["next"])
	events := page["events"].([]any)
	require.Greater(t, len(events), 1)
	require.Less(t, len(events), 60)
	next := d.ok("GET", fmt.Sprintf("/v1/events?from=%.0f", page["next"]), "")["events"].([]any)
	require.Len(t, next, 60-len(events))
}

func TestEventsHaveNoBodies(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", secretBody("1"))
	a := d.do("GET", "/v1/events", nil)
	require.NotContains(t, a.body, secret)
	require.Contains(t, a.body, `"name":"key"`)
}

func TestEventsThatASnapshotCovers(t *testing.T) {
	d := start(t, xdswal.Options{SegmentBytes: 64 << 10, KeepFor: -1})
	for i := range 12 {
		d.set("PUT", "/v1/nodes/n/snapshot", body(fmt.Sprint(i), strings.Repeat("x", 30<<10)))
		if i%3 == 2 {
			require.EqualValues(t, d.sequence, d.ok("POST", "/v1/compact", "")["seq"])
		}
	}
	require.Eventually(t, func() bool { return d.store.Status().Journal.First > 1 }, 10*time.Second, time.Millisecond)
	d.refused(d.do("GET", "/v1/events?from=1", nil), http.StatusGone, "gone", "events are missing")
	require.NotEmpty(t, d.ok("GET", "/v1/events", "")["events"], "the oldest there is")
}

func TestStatusAndCompact(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", secretBody("1"))
	require.EqualValues(t, 1, d.ok("POST", "/v1/compact", "")["seq"])
	s := d.ok("GET", "/v1/status", "")
	require.EqualValues(t, 1, s["seq"])
	require.EqualValues(t, 1, s["nodes"])
	require.EqualValues(t, 1, s["epoch"])
	require.Equal(t, []any{"snapshot/"}, s["caches"])
	require.EqualValues(t, 1, s["snapshot"].(map[string]any)["seq"])
	require.EqualValues(t, 1, s["journal"].(map[string]any)["last"])
}

func TestHealth(t *testing.T) {
	d := start(t, xdswal.Options{})
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n", "/metrics": "metrics\n"} {
		a := d.do("GET", path, nil)
		require.Equal(t, http.StatusOK, a.status)
		require.Equal(t, want, a.body)
	}
}

func TestBeforeItIsReady(t *testing.T) {
	l := &logs{}
	h := admin.New(maxBody, http.NotFoundHandler(), true, slog.New(slog.NewTextHandler(l, nil)))
	d := &daemon{t: t, handler: h, server: httptest.NewServer(h), logs: l}
	defer d.server.Close()
	require.Equal(t, http.StatusOK, d.do("GET", "/healthz", nil).status)
	for _, call := range []string{
		"GET /readyz", "GET /v1/status", "GET /v1/nodes", "GET /v1/events", "POST /v1/compact", "POST /v1/promote", "PUT /v1/nodes/n/snapshot",
		"GET /v1/nodes/n/snapshot", "DELETE /v1/nodes/n/snapshot", "PATCH /v1/nodes/n/resources",
	} {
		method, path, _ := strings.Cut(call, " ")
		d.refused(d.do(method, path, nil), http.StatusServiceUnavailable, "not_ready", "/readyz reports when it is ready")
	}
	require.Empty(t, l.String(), "it is no error")
}

func TestBadBodies(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	resource := func(s string) string { return `{"version":"2","resources":[` + s + `]}` }
	typed := func(s string) string { return resource(fmt.Sprintf(`{"@type":%q,%s}`, resourcev3.ClusterType, s)) }
	for _, tc := range []struct{ name, body, reason string }{
		{"nothing", "", "empty"},
		{"spaces", " \n", "empty"},
		{"cut", `{"version":"2","resources":[{"@type":"` + secret, "malformed"},
		{"malformed YAML", "version: \"2\"\nresources: [" + secret, "malformed"},
		{"two documents", "version: \"2\"\nresources: []\n---\nversion: \"3\"\nresources: []\n", "multiple_documents"},
		{"too deep", `{"version":"2","resources":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}", "too_deep"},
		{"key twice", `{"version":"2","version":"3","resources":[]}`, "duplicate_key"},
		{"unknown key", `{"version":"2","resources":[],"` + secret + `=":1}`, "unknown_field"},
		{"unknown field", typed(`"name":"a","alt_stat_nam":"` + secret + `"`), "unknown_field"},
		{"no version", `{"resources":[` + strings.TrimSuffix(strings.SplitN(body("1", "a"), "[", 2)[1], "}") + "}", "missing_version"},
		{"no resources", `{"version":"2"}`, "missing_resources"},
		{"no type", resource(`{"name":"a"}`), "missing_type"},
		{"a type that is not served", resource(`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"` + secret + `"}`), "unserved_type"},
		{"unknown type within", typed(`"name":"a","typed_extension_protocol_options":{"x":{"@type":"type.googleapis.com/no.such.Type","y":"` + secret + `"}}`), "unknown_type"},
		{"no name", typed(`"alt_stat_name":"` + secret + `"`), "missing_name"},
		{"names twice", body("2", "a", "a"), "duplicate_name"},
		{"wrong kind of value", typed(`"name":"a","connect_timeout":"` + secret + `"`), "invalid"},
		{"against Envoy's rules", typed(`"name":"a","connect_timeout":"-1s"`), "invalid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := *d
			d.t = t
			d.refused(d.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(tc.body)), http.StatusBadRequest, tc.reason, "")
		})
	}
	for name, patch := range map[string]string{
		"empty":          `{"version":"2"}`,
		"duplicate_name": fmt.Sprintf(`{"version":"2","upsert":[{"@type":%[1]q,"name":"x"}],"delete":[{"type_url":%[1]q,"name":"x"}]}`, resourcev3.ClusterType),
		"unknown_field":  `{"version":"2","upserts":[]}`,
		"unserved_type":  `{"version":"2","delete":[{"type_url":"type.googleapis.com/x.y","name":"x"}]}`,
	} {
		d.refused(d.do("PATCH", "/v1/nodes/n/resources", strings.NewReader(patch)), http.StatusBadRequest, name, "")
	}
	require.Equal(t, "1", d.cache.GetNode("n").Type(resourcev3.ClusterType).Version())
	require.Empty(t, d.logs.String(), "a bad request is the client's matter")
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	// zeros are read as far as the server takes them.
	zeros := func(n int64) io.Reader { return io.LimitReader(neverEnding{}, n) }
	for name, length := range map[string]int64{"with its length": 100 << 20, "in chunks": -1} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []string{"PUT /v1/nodes/n/snapshot", "PATCH /v1/nodes/n/resources"} {
				method, path, _ := strings.Cut(call, " ")
				req := httptest.NewRequestWithContext(t.Context(), method, "http://localhost"+path, zeros(100<<20))
				req.ContentLength = length
				read := &counting{ReadCloser: req.Body}
				req.Body = read
				w := httptest.NewRecorder()
				d.handler.ServeHTTP(w, req)
				d.refused(answer{w.Code, w.Header(), w.Body.String()}, http.StatusRequestEntityTooLarge, "too_large", "65536 bytes")
				require.Less(t, read.n, int64(2*maxBody))
			}
		})
	}
	// And over the wire, where the client is still writing.
	req, err := http.NewRequestWithContext(t.Context(), "PUT", d.server.URL+"/v1/nodes/n/snapshot", zeros(1<<20))
	require.NoError(t, err)
	d.refused(d.send(req), http.StatusRequestEntityTooLarge, "too_large", "--max-body-bytes")
	require.Equal(t, "1", d.cache.GetNode("n").Type(resourcev3.ClusterType).Version())

	exact := body("2", "a")
	exact += strings.Repeat(" ", maxBody-len(exact))
	d.set("PUT", "/v1/nodes/n/snapshot", exact)
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type counting struct {
	io.ReadCloser
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}

func TestACutBody(t *testing.T) {
	d := start(t, xdswal.Options{})
	req := httptest.NewRequestWithContext(t.Context(), "PUT", "http://localhost/v1/nodes/n/snapshot",
		io.MultiReader(strings.NewReader(body("1", "a")[:20]), broken{}))
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, req)
	d.refused(answer{w.Code, w.Header(), w.Body.String()}, http.StatusBadRequest, "cut", "is incomplete")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestNodeNames(t *testing.T) {
	d := start(t, xdswal.Options{})
	for _, name := range []string{"a%2Fb", "a%20b", "%C3%BC", "..%2F..%2Fx", strings.Repeat("x", 512)} {
		d.set("PUT", "/v1/nodes/"+name+"/snapshot", body("1", "a"))
		require.Equal(t, http.StatusOK, d.do("GET", "/v1/nodes/"+name+"/snapshot", nil).status, name)
	}
	require.NotNil(t, d.cache.GetNode("a/b"))
	require.NotNil(t, d.cache.GetNode("ü"))
	for _, name := range []string{"a%0Ab", "%00", "%1b[31m", "%FF%FE", strings.Repeat("x", 513)} {
		for _, call := range []string{"PUT /v1/nodes/%s/snapshot", "GET /v1/nodes/%s/snapshot", "DELETE /v1/nodes/%s/snapshot", "PATCH /v1/nodes/%s/resources"} {
			method, path, _ := strings.Cut(strings.Replace(call, "%s", name, 1), " ")
			d.refused(d.do(method, path, strings.NewReader(body("1", "a"))), http.StatusBadRequest, "bad_node", "1 to 512 bytes")
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	d := start(t, xdswal.Options{})
	for _, path := range []string{"/", "/v1", "/v2/status", "/v1/nodes/n", "/v1/nodes/snapshot", "/v1/nodes/a/b/snapshot"} {
		d.refused(d.do("GET", path, nil), http.StatusNotFound, "unknown_path", "docs/admin-api.md")
	}
	a := d.do("POST", "/v1/nodes/n/snapshot", strings.NewReader(body("1", "a")))
	d.refused(a, http.StatusMethodNotAllowed, "bad_method", "POST")
	require.Equal(t, "DELETE, GET, HEAD, PUT", a.header.Get("Allow"))
	d.refused(d.do("GET", "/v1/compact", nil), http.StatusMethodNotAllowed, "bad_method", "GET")
}

func TestForeignHosts(t *testing.T) {
	d := start(t, xdswal.Options{})
	for host, local := range map[string]bool{
		"localhost": true, "localhost:19000": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:19000": true, "[::1]": true,
		"evil.example": false, "evil.example:19000": false, "localhost.evil.example": false, "10.0.0.1:19000": false, "0.0.0.0:19000": false, "": false,
	} {
		req := httptest.NewRequestWithContext(t.Context(), "PUT", "http://localhost/v1/nodes/n/snapshot", strings.NewReader(body("1", "a")))
		req.Host = host
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, req)
		if local {
			require.Equal(t, http.StatusOK, w.Code, host)
			continue
		}
		d.refused(answer{w.Code, w.Header(), w.Body.String()}, http.StatusForbidden, "foreign_host", "loopback")
	}
	d.sequence = 1

	h := admin.New(maxBody, http.NotFoundHandler(), false, slog.New(slog.DiscardHandler))
	req := httptest.NewRequestWithContext(t.Context(), "GET", "http://any.example/healthz", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	require.Equal(t, http.StatusOK, w.Code, "an interface that was put on a network answers its names")
}

func TestAfterTheStoreIsClosed(t *testing.T) {
	d := start(t, xdswal.Options{})
	d.set("PUT", "/v1/nodes/n/snapshot", secretBody("1"))
	require.NoError(t, d.store.Close(t.Context()))
	d.refused(d.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(secretBody("2"))), http.StatusServiceUnavailable, "closed", "shutting down")
	d.refused(d.do("DELETE", "/v1/nodes/n/snapshot", nil), http.StatusServiceUnavailable, "closed", "shutting down")
	require.Equal(t, http.StatusOK, d.do("GET", "/v1/nodes/n/snapshot", nil).status)
}

func TestWithoutPersistence(t *testing.T) {
	d := start(t, xdswal.Options{MemoryOnly: true})
	d.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	d.refused(d.do("GET", "/v1/events", nil), http.StatusConflict, "disabled", "--memory-only")
	d.refused(d.do("POST", "/v1/compact", nil), http.StatusConflict, "disabled", "--memory-only")
	require.Empty(t, d.logs.String())

	d = start(t, xdswal.Options{Dir: t.TempDir(), DisableSnapshots: true})
	d.refused(d.do("POST", "/v1/compact", nil), http.StatusConflict, "disabled", "--no-snapshots")
}

func TestAFullJournal(t *testing.T) {
	d := start(t, xdswal.Options{SegmentBytes: 64 << 10, MaxJournalBytes: 128 << 10, DisableSnapshots: true})
	var last answer
	for i := range 100 {
		last = d.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(body(fmt.Sprint(i), strings.Repeat("x", 20<<10))))
		if last.status != http.StatusOK {
			break
		}
		d.sequence++
	}
	d.refused(last, http.StatusInsufficientStorage, "journal_full", "journal is full")
	require.Contains(t, d.logs.String(), "journal_full")
	require.Equal(t, http.StatusOK, d.do("GET", "/v1/nodes/n/snapshot", nil).status, "it still serves")
}
