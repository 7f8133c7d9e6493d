package resourcefile

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// FromSnapshot returns the document of a snapshot, its resources in the order in
// which ADS sends their types, and then by name. The version that most types have is
// the document's. Snapshot gives an equal snapshot back.
func FromSnapshot(snapshot cachev3.ResourceSnapshot) *Document {
	d := &Document{Version: commonVersion(snapshot)}
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); version != d.Version {
			if d.Versions == nil {
				d.Versions = make(map[string]string)
			}
			d.Versions[typeURL] = version
		}
		items := snapshot.GetResourcesAndTTL(typeURL)
		for _, name := range slices.Sorted(maps.Keys(items)) {
			d.Resources = append(d.Resources, Resource{
				TypeURL: typeURL,
				Name:    name,
				TTL:     items[name].TTL,
				Message: items[name].Resource,
			})
		}
	}
	return d
}

// commonVersion is the most frequent version that is not empty, the first of equals.
func commonVersion(snapshot cachev3.ResourceSnapshot) string {
	count := make(map[string]int)
	best := ""
	for _, typeURL := range servedTypes {
		version := snapshot.GetVersion(typeURL)
		if version == "" {
			continue
		}
		count[version]++
	}
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); count[version] > count[best] {
			best = version
		}
	}
	return best
}

// Marshal writes a document in the form that Parse reads. The bytes depend on the
// document alone; field names are those of the .proto files, as Envoy's documentation
// has them. A message packed in a resource must be of a type that the program links.
func Marshal(d *Document, format Format) ([]byte, error) {
	if format != JSON && format != YAML {
		return nil, errorf(ReasonInvalid, "format %q is not known; use %q or %q", string(format), JSON, YAML)
	}
	compact, err := marshalJSON(d)
	if err != nil {
		return nil, err
	}
	if format == YAML {
		return jsonToYAML(compact)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return nil, errorf(ReasonInvalid, "document does not make JSON; report this as a bug")
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func marshalJSON(d *Document) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	if d.Version != "" {
		b.WriteString(`"version":`)
		b.Write(quote(d.Version))
		b.WriteByte(',')
	}
	if len(d.Versions) > 0 {
		b.WriteString(`"versions":{`)
		for i, typeURL := range slices.Sorted(maps.Keys(d.Versions)) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(quote(typeURL))
			b.WriteByte(':')
			b.Write(quote(d.Versions[typeURL]))
		}
		b.WriteString(`},`)
	}
	b.WriteString(`"resources":[`)
	for i, r := range d.Resources {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := marshalResource(&b, r); err != nil {
			return nil, err
		}
	}
	b.WriteString(`]}`)
	return b.Bytes(), nil
}

func marshalResource(b *bytes.Buffer, r Resource) error {
	if r.TTL == nil {
		return marshalMessage(b, r)
	}
	ttl, err := protojson.Marshal(durationpb.New(*r.TTL))
	if err != nil {
		return errorf(ReasonInvalid, "resource %s %q has a TTL out of range; correct it", shortType(r.TypeURL), clip(r.Name))
	}
	b.WriteString(`{"@type":"` + resourceWrapper + `","name":`)
	b.Write(quote(r.Name))
	b.WriteString(`,"ttl":`)
	b.Write(ttl)
	b.WriteString(`,"resource":`)
	if err := marshalMessage(b, r); err != nil {
		return err
	}
	b.WriteByte('}')
	return nil
}

// marshalMessage writes a message as an Any. The type is put in front of the fields,
// which spares packing the message.
func marshalMessage(b *bytes.Buffer, r Resource) error {
	fields, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Message)
	if err != nil {
		return errUnwritable(r)
	}
	b.WriteString(`{"@type":`)
	b.Write(quote(r.TypeURL))
	if fields = bytes.TrimSpace(fields[1 : len(fields)-1]); len(fields) > 0 {
		b.WriteByte(',')
	}
	// protojson varies its spaces on purpose; what is written must not vary.
	compact := bytes.NewBuffer(make([]byte, 0, len(fields)+2))
	if err := json.Compact(compact, slices.Concat([]byte{'{'}, fields, []byte{'}'})); err != nil {
		return errUnwritable(r)
	}
	b.Write(compact.Bytes()[1:])
	return nil
}

// errUnwritable finds out why protojson refused a message; what it says itself may
// hold values.
func errUnwritable(r Resource) *Error {
	if r.Message != nil {
		if typeURL := unlinked(r.Message.ProtoReflect()); typeURL != "" {
			return errorf(ReasonUnknownType, "resource %s %q packs %s, which this program does not link; use one that links it", shortType(r.TypeURL), clip(r.Name), typeURL)
		}
	}
	return errorf(ReasonInvalid, "resource %s %q cannot be written as JSON; see that its strings are UTF-8 and its times in range", shortType(r.TypeURL), clip(r.Name))
}

// unlinked returns the type of the first packed message that does not resolve, or "".
func unlinked(m protoreflect.Message) (typeURL string) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return unlinkedAny(packed)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				typeURL = unlinked(v.Message())
				return typeURL == ""
			})
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && typeURL == ""; i++ {
				typeURL = unlinked(v.List().Get(i).Message())
			}
		default:
			typeURL = unlinked(v.Message())
		}
		return typeURL == ""
	})
	return typeURL
}

func unlinkedAny(packed *anypb.Any) string {
	if packed.GetTypeUrl() == "" {
		return ""
	}
	found, err := protoregistry.GlobalTypes.FindMessageByURL(packed.GetTypeUrl())
	if err != nil {
		if safeType(packed.GetTypeUrl()) {
			return packed.GetTypeUrl()
		}
		return "a type whose URL is not shown"
	}
	message := found.New()
	if proto.Unmarshal(packed.GetValue(), message.Interface()) != nil {
		return ""
	}
	return unlinked(message)
}
