package resourcefile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// FromSnapshot returns the document of a snapshot, with the resources in the order in
// which ADS sends their types, and then by name. Its Version is the most frequent
// version. Snapshot returns an equal snapshot.
func FromSnapshot(snapshot cachev3.ResourceSnapshot) *Document {
	count := make(map[string]int)
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); version != "" {
			count[version]++
		}
	}
	frequent := slices.MaxFunc(servedTypes, func(a, b string) int {
		return cmp.Compare(count[snapshot.GetVersion(a)], count[snapshot.GetVersion(b)])
	})
	d := &Document{Version: snapshot.GetVersion(frequent), Versions: make(map[string]string)}
	for _, typeURL := range servedTypes {
		if version := snapshot.GetVersion(typeURL); version != d.Version {
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
	err = encoder.Encode(document)
	if format == YAML && err == nil {
		root := readJSON(b.Bytes())
		setStyle(root)
		b = bytes.Buffer{}
		encoder := yaml.NewEncoder(&b)
		encoder.SetIndent(2)
		err = errors.Join(encoder.Encode(root), encoder.Close())
	}
	if err != nil {
		fail(ReasonInvalid, "document cannot be written as %s; use the other format, and report this as a bug", format)
	}
	return b.Bytes(), nil
}

// linkedTypes resolves the types that the program links, and keeps the first URL that
// it does not.
type linkedTypes struct {
	*protoregistry.Types
	missing string
}

func (l *linkedTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	found, err := l.Types.FindMessageByURL(url)
	if err != nil {
		l.missing = cmp.Or(l.missing, url)
	}
	return found, err
}

// resourceForm returns what encoding/json writes as a resource. An error of protojson
// can contain values and is not used.
func resourceForm(r Resource) any {
	var message json.RawMessage
	linked := &linkedTypes{Types: protoregistry.GlobalTypes}
	packed, err := anypb.New(r.Message)
	if err == nil {
		message, err = protojson.MarshalOptions{UseProtoNames: true, Resolver: linked}.Marshal(packed)
	}
	switch {
	case linked.missing != "":
		fail(ReasonUnknownType, "resource %s %.128q packs %s, which this program does not link; use one that links it", shortType(r.TypeURL), r.Name, shown(linked.missing))
	case err != nil:
		fail(ReasonInvalid, "resource %s %.128q cannot be written as JSON; see that its strings are UTF-8 and its times in range", shortType(r.TypeURL), r.Name)
	case r.TTL == nil:
		return message
	}
	ttl, _ := protojson.Marshal(durationpb.New(*r.TTL)) // each time.Duration is in range
	return struct {
		Type     string          `json:"@type"`
		Name     string          `json:"name"`
		TTL      json.RawMessage `json:"ttl"`
		Resource json.RawMessage `json:"resource"`
	}{resourceWrapper, r.Name, ttl, message}
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
