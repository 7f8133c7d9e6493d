package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/stretchr/testify/require"
)

// object is a JSON object.
type object = map[string]any

// status is the answer of GET /v1/status.
type status struct {
	Seq       uint64
	Nodes     int
	Resources int
	Degraded  string
	Journal   struct {
		First, Last uint64
		Segments    int
		Bytes       int64
	}
	Snapshot struct {
		Seq   uint64
		Error string
	}
	Backend struct {
		Location string
		Epoch    uint64
		Claimed  bool
		Shipped  uint64
		Snapshot uint64
		Error    string
		Fenced   string
	}
	Follower struct {
		Epoch      uint64
		LagSeconds float64 `json:"lag_seconds"`
		Error      string
	}
	Restored struct {
		Source      string
		SnapshotSeq uint64 `json:"snapshot_seq"`
		Seq         uint64
		Events      int
		Nodes       int
		Resources   int
		Skipped     []object
	}
}

// nodeInfo is a node of GET /v1/nodes.
type nodeInfo struct {
	Node      string
	Seq       uint64
	Resources int
	Types     map[string]struct {
		Version   string
		Resources int
	}
}

// eventInfo is an event of GET /v1/events.
type eventInfo struct {
	Seq   uint64
	Kind  string
	Node  string
	Types []struct {
		TypeURL string `json:"type_url"`
		Version string
		Set     []struct{ Name string }
		Deleted []string
	}
}

// statusError is an answer with a status other than 200.
type statusError struct {
	status int
	body   string
}

func (r *statusError) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.body) }

// call sends one request, and decodes a JSON answer into out. The error is a *statusError
// if a complete answer was received.
func (d *daemon) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.admin+path, body)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &statusError{resp.StatusCode, string(data)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (d *daemon) must(method, path string, in, out any) {
	d.t.Helper()
	require.NoError(d.t, d.call(context.Background(), method, path, in, out), "%s %s", method, path)
}

func nodePath(node, what string) string { return "/v1/nodes/" + url.PathEscape(node) + "/" + what }

// put replaces a node's resources, and returns the sequence of the update.
func (d *daemon) put(node, version string, resources ...object) uint64 {
	d.t.Helper()
	var answer struct{ Seq uint64 }
	if resources == nil {
		resources = []object{}
	}
	d.must(http.MethodPut, nodePath(node, "snapshot"), object{"version": version, "resources": resources}, &answer)
	require.NotZero(d.t, answer.Seq)
	return answer.Seq
}

// name returns the name of a resource to delete.
func name(typeURL, name string) object { return object{"type_url": typeURL, "name": name} }

// patch changes some resources of a node, and returns the sequence of the update.
func (d *daemon) patch(node, version string, upsert, remove []object) uint64 {
	d.t.Helper()
	var answer struct{ Seq uint64 }
	d.must(http.MethodPatch, nodePath(node, "resources"), object{"version": version, "upsert": upsert, "delete": remove}, &answer)
	require.NotZero(d.t, answer.Seq)
	return answer.Seq
}

func (d *daemon) status() status {
	d.t.Helper()
	var s status
	d.must(http.MethodGet, "/v1/status", nil, &s)
	return s
}

func (d *daemon) nodes() []nodeInfo {
	d.t.Helper()
	var answer struct {
		Nodes []nodeInfo
		Next  string
	}
	d.must(http.MethodGet, "/v1/nodes", nil, &answer)
	require.Empty(d.t, answer.Next)
	return answer.Nodes
}
