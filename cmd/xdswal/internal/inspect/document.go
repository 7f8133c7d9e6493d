package inspect

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// document returns a node as the document of a resource file. A resource that
// such a file cannot contain is an error.
func document(n *state.Node) (*resourcefile.Document, error) {
	snapshot := &cachev3.Snapshot{}
	for i := range n.Types() {
		t := &n.Types()[i]
		at := cachev3.GetResponseType(t.URL())
		if at == types.UnknownType {
			return nil, fmt.Errorf("the node has resources of type %s, which a resource file cannot contain", t.URL())
		}
		group := cachev3.Resources{Version: t.Version(), Items: make(map[string]types.ResourceWithTTL, t.Len())}
		for r := range t.All() {
			m, err := message(r)
			if err != nil {
				return nil, err
			}
			if r.TypeURL != t.URL() || cachev3.GetResourceName(m) != r.Name {
				return nil, fmt.Errorf("resource %q is a %s served as %s, which a resource file cannot contain", r.Name, r.TypeURL, t.URL())
			}
			group.Items[r.Name] = types.ResourceWithTTL{Resource: m, TTL: r.TTL}
		}
		snapshot.Resources[at] = group
	}
	return resourcefile.FromSnapshot(snapshot), nil
}

// changed returns the resources that an event sets, and their versions.
func changed(ev *journal.Event) (*resourcefile.Document, error) {
	d := &resourcefile.Document{}
	for i := range ev.Types {
		tc := &ev.Types[i]
		for _, r := range tc.Upserts {
			m, err := message(r)
			if err != nil {
				return nil, err
			}
			d.Resources = append(d.Resources, resourcefile.Resource{TypeURL: r.TypeURL, Name: r.Name, TTL: r.TTL, Message: m})
		}
		switch {
		case len(tc.Upserts) == 0:
		case d.Version == "":
			d.Version = tc.Version
		case tc.Version != d.Version:
			if d.Versions == nil {
				d.Versions = map[string]string{}
			}
			d.Versions[tc.TypeURL] = tc.Version
		}
	}
	return d, nil
}

// body returns a resource in the JSON form of an Any.
func body(r *journal.Resource) (json.RawMessage, error) {
	m, err := message(r)
	if err != nil {
		return nil, err
	}
	d := &resourcefile.Document{Resources: []resourcefile.Resource{{TypeURL: r.TypeURL, Name: r.Name, Message: m}}}
	data, err := resourcefile.Marshal(d, resourcefile.JSON)
	if err != nil {
		return nil, err
	}
	var out struct {
		Resources []json.RawMessage `json:"resources"`
	}
	if err := json.Unmarshal(data, &out); err != nil || len(out.Resources) != 1 {
		return nil, fmt.Errorf("show resource %q: it cannot be marshaled to JSON", r.Name)
	}
	return out.Resources[0], nil
}

// message decodes a resource. An unknown type or field is an error, because JSON
// would omit it.
func message(r *journal.Resource) (proto.Message, error) {
	if _, err := protoregistry.GlobalTypes.FindMessageByURL(r.TypeURL); err != nil {
		return nil, fmt.Errorf("show resource %q: type %s is unknown to this xdswal; use a newer one", r.Name, r.TypeURL)
	}
	m, err := (*xdscache.Resource)(r).Decoded()
	if err != nil {
		return nil, err
	}
	if hasUnknown(m) {
		return nil, fmt.Errorf("show resource %q of type %s: it has fields unknown to this xdswal; use a newer one", r.Name, r.TypeURL)
	}
	return m, nil
}

// hasUnknown reports whether a message, or one within it, has unknown fields.
func hasUnknown(m proto.Message) bool {
	found := errors.New("found")
	return protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		if m, ok := p.Index(-1).Value.Interface().(protoreflect.Message); ok && len(m.GetUnknown()) > 0 {
			return found
		}
		return nil
	}) != nil
}
