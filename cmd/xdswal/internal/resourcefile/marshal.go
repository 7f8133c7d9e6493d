package resourcefile

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// FromSnapshot returns the document of a snapshot, with the resources in the order in
// which ADS sends their types, and then by name. Its Version is the most frequent
// version. Snapshot returns an equal snapshot.
func FromSnapshot(snapshot cachev3.ResourceSnapshot) *Document {
	d := &Document{}
	count := make(map[string]int)
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); version != "" {
			count[version]++
		}
	}
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); count[version] > count[d.Version] {
			d.Version = version
		}
	}
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); version != d.Version {
			if d.Versions == nil {
				d.Versions = make(map[string]string)
			}
			d.Versions[typeURL] = version
		}
		items := snapshot.GetResourcesAndTTL(typeURL)
		for _, name := range slices.Sorted(maps.Keys(items)) {
			d.Resources = append(d.Resources, Resource{typeURL, name, items[name].TTL, items[name].Resource})
		}
	}
	return d
}

// Marshal writes a document in the form that Parse reads. Equal documents give equal
// bytes. Field names are those of the .proto files, as in Envoy's documentation. A
// message packed in a resource must be of a type that the program links.
func Marshal(d *Document, format Format) (_ []byte, err error) {
	defer catch(&err)
	if format != JSON && format != YAML {
		fail(ReasonInvalid, "format %q is not known; use %q or %q", string(format), JSON, YAML)
	}
	document := struct {
		Version   string            `json:"version,omitempty"`
		Versions  map[string]string `json:"versions,omitempty"`
		Resources []any             `json:"resources"`
	}{d.Version, d.Versions, []any{}}
	for _, r := range d.Resources {
		document.Resources = append(document.Resources, resourceForm(r))
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		fail(ReasonInvalid, "document cannot be written as JSON; report this as a bug")
	}
	if format == JSON {
		return b.Bytes(), nil
	}
	root := readJSON(b.Bytes())
	setStyle(root)
	b = bytes.Buffer{}
	yamlEncoder := yaml.NewEncoder(&b)
	yamlEncoder.SetIndent(2)
	if yamlEncoder.Encode(root) != nil || yamlEncoder.Close() != nil {
		fail(ReasonInvalid, "document cannot be written as YAML; export it as JSON")
	}
	return b.Bytes(), nil
}

// resourceForm returns what encoding/json writes as a resource. An error of protojson
// can contain values and is not used.
func resourceForm(r Resource) any {
	var message json.RawMessage
	packed, err := anypb.New(r.Message)
	if err == nil {
		message, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(packed)
	}
	if err != nil {
		if typeURL := unlinked(r); typeURL != "" {
			fail(ReasonUnknownType, "resource %s %q packs %s, which this program does not link; use one that links it", shortType(r.TypeURL), clip(r.Name), typeURL)
		}
		fail(ReasonInvalid, "resource %s %q cannot be written as JSON; see that its strings are UTF-8 and its times in range", shortType(r.TypeURL), clip(r.Name))
	}
	if r.TTL == nil {
		return message
	}
	ttl, err := protojson.Marshal(durationpb.New(*r.TTL))
	if err != nil {
		fail(ReasonInvalid, "resource %s %q has a TTL out of range; correct it", shortType(r.TypeURL), clip(r.Name))
	}
	return struct {
		Type     string          `json:"@type"`
		Name     string          `json:"name"`
		TTL      json.RawMessage `json:"ttl"`
		Resource json.RawMessage `json:"resource"`
	}{resourceWrapper, r.Name, ttl, message}
}

// unlinked returns the type of a message packed in r that the program does not link.
func unlinked(r Resource) (typeURL string) {
	if r.Message == nil {
		return ""
	}
	_ = protorange.Range(r.Message.ProtoReflect(), func(p protopath.Values) error {
		if m, ok := p.Index(-1).Value.Interface().(protoreflect.Message); ok {
			packed, ok := m.Interface().(*anypb.Any)
			if ok && packed.GetTypeUrl() != "" {
				if _, err := protoregistry.GlobalTypes.FindMessageByURL(packed.GetTypeUrl()); err != nil {
					typeURL = packed.GetTypeUrl()
					return protorange.Terminate
				}
			}
		}
		return nil
	})
	if typeURL != "" && !safeType(typeURL) {
		return "a type whose URL is not shown"
	}
	return typeURL
}

var (
	// plainString is a string without quotes for every YAML reader, of version 1.1 too.
	plainString = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]*$`)
	// plainWord is a boolean or null for some of them.
	plainWord = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
	// block is text of several lines, such as a certificate.
	block = regexp.MustCompile(`^([!-~][ -~]*\n+)+[!-~][ -~]*\n?$`)
)

// setStyle sets the style of n, and of what is in it, for people and for all readers.
func setStyle(n *yaml.Node) {
	switch {
	case n.Kind != yaml.ScalarNode && len(n.Content) == 0:
		n.Style = yaml.FlowStyle
	case n.Kind != yaml.ScalarNode:
	case n.Tag != "!!str":
		n.Tag = "" // a number is not written as !!float 1
	case block.MatchString(n.Value) && !strings.Contains(n.Value, " \n"):
		n.Style = yaml.LiteralStyle
	case !plainString.MatchString(n.Value) || plainWord.MatchString(n.Value):
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, child := range n.Content {
		setStyle(child)
	}
}
