package inspect

import (
	"encoding/json"
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// document returns a node as a resource file has it. What no such file can
// hold is an error and not left out.
func document(n *state.Node) (*resourcefile.Document, error) {
	snapshot := &cachev3.Snapshot{}
	for i := range n.Types() {
		t := &n.Types()[i]
		at := cachev3.GetResponseType(t.URL())
		if at == types.UnknownType {
			return nil, fmt.Errorf("the node has resources of type %s, which a resource file cannot hold", t.URL())
		}
		group := cachev3.Resources{Version: t.Version(), Items: make(map[string]types.ResourceWithTTL, t.Len())}
		for r := range t.All() {
			m, err := message(r)
			if err != nil {
				return nil, err
			}
			if r.TypeURL != t.URL() || cachev3.GetResourceName(m) != r.Name {
				return nil, fmt.Errorf("resource %q is a %s served as %s, which a resource file cannot hold", r.Name, r.TypeURL, t.URL())
			}
			group.Items[r.Name] = types.ResourceWithTTL{Resource: m, TTL: r.TTL}
		}
		snapshot.Resources[at] = group
	}
	return resourcefile.FromSnapshot(snapshot), nil
}

// changed returns what an event sets.
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
		return nil, fmt.Errorf("show resource %q: it does not make JSON", r.Name)
	}
	return out.Resources[0], nil
}

// message decodes a resource. One that this program does not know whole is an
// error: JSON would show it without what is not known.
func message(r *journal.Resource) (proto.Message, error) {
	if _, err := protoregistry.GlobalTypes.FindMessageByURL(r.TypeURL); err != nil {
		return nil, fmt.Errorf("show resource %q: this xdswal does not know the type %s: use a newer one", r.Name, r.TypeURL)
	}
	m, err := (*xdscache.Resource)(r).Decoded()
	if err != nil {
		return nil, err
	}
	if hasUnknown(m.ProtoReflect()) {
		return nil, fmt.Errorf("show resource %q of type %s: it has fields that this xdswal does not know: use a newer one", r.Name, r.TypeURL)
	}
	return m, nil
}

// hasUnknown reports whether a message, or one within it, has fields that its
// type, as this program knows it, does not have.
func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		// What cannot be decoded, marshaling tells of.
		return err == nil && hasUnknown(inner.ProtoReflect())
	}
	found := false
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		eachMessage(fd, v, func(inner protoreflect.Message) { found = found || hasUnknown(inner) })
		return !found
	})
	return found
}

// eachMessage calls fn for the messages that a field holds.
func eachMessage(fd protoreflect.FieldDescriptor, v protoreflect.Value, fn func(protoreflect.Message)) {
	switch {
	case fd.IsMap():
		if fd.MapValue().Message() != nil {
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				fn(v.Message())
				return true
			})
		}
	case fd.Message() == nil:
	case fd.IsList():
		for i := range v.List().Len() {
			fn(v.List().Get(i).Message())
		}
	default:
		fn(v.Message())
	}
}
