package resourcefile

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// decode returns the message of an object, without some of its members.
func (t *tree) decode(n *yaml.Node, typeURL string, skip ...string) proto.Message {
	found, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		t.failAt(member(n, "@type"), ReasonUnknownType, "this program does not link the type; use one that links Envoy's messages")
	}
	message := found.New().Interface()
	if fields := without(n, skip...); !fits(fields, message) {
		t.checkFields(fields, found.Descriptor())
		t.failAt(n, ReasonInvalid, "does not decode as %s; compare it with the message's reference", found.Descriptor().FullName())
	}
	return message
}

// fits decodes n as message. The text of an error can contain any value, and is not
// used: the functions below look for the value that does not fit, and decode the
// scalars one by one.
func fits(n *yaml.Node, message proto.Message) bool {
	var b bytes.Buffer
	writeJSON(&b, n)
	return protojson.Unmarshal(b.Bytes(), message) == nil
}

// checkFields fails at the first member of n that does not fit a field of md.
func (t *tree) checkFields(n *yaml.Node, md protoreflect.MessageDescriptor) {
	if n.Tag != "!!map" {
		t.misfit(n, fmt.Sprintf("an object (%s)", md.FullName()))
	}
	seen := make(map[protoreflect.Descriptor]protoreflect.Name) // fields and oneofs
	for key, value := range pairs(n) {
		field := md.Fields().ByJSONName(key.Value)
		if field == nil {
			field = md.Fields().ByTextName(key.Value)
		}
		if field == nil {
			t.failAt(key, ReasonUnknownField, "not a field of %s; remove it or correct its name", md.FullName())
		}
		if seen[field] != "" {
			t.failAt(key, ReasonDuplicateKey, "the field is set twice, in two spellings of its name; keep one")
		}
		seen[field] = field.Name()
		if value.Tag == "!!null" {
			continue
		}
		if oneof := field.ContainingOneof(); oneof != nil {
			if other := seen[oneof]; other != "" {
				t.failAt(key, ReasonInvalid, "%s and %s exclude each other; keep one", other, field.Name())
			}
			seen[oneof] = field.Name()
		}
		t.checkField(value, field, false)
	}
}

// checkField fails at the first value that does not fit. n is a value of the field, or
// one item of a list.
func (t *tree) checkField(n *yaml.Node, field protoreflect.FieldDescriptor, item bool) {
	switch {
	case field.IsMap():
		if n.Tag != "!!map" {
			t.misfit(n, "an object of "+string(field.Name()))
		}
		for key, value := range pairs(n) {
			if !fits(object("key", key), dynamicpb.NewMessage(field.Message())) {
				t.misfit(key, "a key of type "+field.MapKey().Kind().String())
			}
			t.checkField(value, field.MapValue(), true)
		}
	case field.IsList() && !item:
		if n.Tag != "!!seq" {
			t.misfit(n, "a list")
		}
		for _, value := range n.Content {
			t.checkField(value, field, true)
		}
	case field.Message() != nil:
		t.checkMessage(n, field.Message())
	default:
		value := n
		if item && field.IsList() {
			value = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{n}}
		}
		if n.Tag == "!!null" || !fits(object(field.TextName(), value), dynamicpb.NewMessage(field.ContainingMessage())) {
			t.misfit(n, scalarForm(field))
		}
	}
}

func object(key string, value *yaml.Node) *yaml.Node {
	name := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{name, value}}
}

// checkMessage fails at the first value in n that does not fit md.
func (t *tree) checkMessage(n *yaml.Node, md protoreflect.MessageDescriptor) {
	form := forms[md.FullName()]
	switch {
	case form == "":
		t.checkFields(n, md)
	case md.FullName() == "google.protobuf.Any" && n.Tag == "!!map":
		t.checkAny(n)
	case form == kinds[n.Tag] || md == valueMessage && n.Kind != yaml.ScalarNode:
		for _, child := range n.Content {
			t.checkMessage(child, valueMessage)
		}
	case !fits(n, dynamicpb.NewMessage(md)):
		t.misfit(n, form)
	}
}

// checkAny fails at the first value in n that does not fit its type.
func (t *tree) checkAny(n *yaml.Node) {
	if len(n.Content) == 0 {
		return
	}
	name := member(n, "@type")
	if name == nil {
		t.failAt(n, ReasonMissingType, `no type is given; add the key "@type" with the type URL of the message`)
	}
	if name.Tag != "!!str" {
		t.misfit(name, "a string")
	}
	found, err := protoregistry.GlobalTypes.FindMessageByURL(name.Value)
	switch {
	case err != nil && safeType(name.Value):
		t.failAt(name, ReasonUnknownType, "%s is not a message that this program links; correct the name, or use a release that has it", name.Value)
	case err != nil:
		t.failAt(name, ReasonUnknownType, "not a type URL that this program knows; write type.googleapis.com/ and the full name of the message")
	case forms[found.Descriptor().FullName()] == "":
		t.checkFields(without(n, "@type"), found.Descriptor())
		return
	}
	for key, value := range pairs(n) {
		switch key.Value {
		case "@type":
		case "value":
			t.checkMessage(value, found.Descriptor())
		default:
			t.failAt(key, ReasonUnknownField, "not a field of %s; remove it or correct its name", found.Descriptor().FullName())
		}
	}
	if member(n, "value") == nil {
		t.failAt(n, ReasonInvalid, `the message has no value; add the key "value"`)
	}
}

// valueMessage is the message of any JSON, which is in Struct and ListValue.
var valueMessage = (*structpb.Value)(nil).ProtoReflect().Descriptor()

// forms are the messages that have a JSON form of their own.
var forms = map[protoreflect.FullName]string{
	"google.protobuf.Any":         `an object with an "@type"`,
	"google.protobuf.BoolValue":   "true or false",
	"google.protobuf.BytesValue":  "a string of base64",
	"google.protobuf.DoubleValue": "a double",
	"google.protobuf.Duration":    `a duration in seconds such as "1.5s"`,
	"google.protobuf.Empty":       "an object without keys",
	"google.protobuf.FieldMask":   "field names with commas between",
	"google.protobuf.FloatValue":  "a float",
	"google.protobuf.Int32Value":  "an int32",
	"google.protobuf.Int64Value":  "an int64",
	"google.protobuf.ListValue":   "a list",
	"google.protobuf.StringValue": "a string",
	"google.protobuf.Struct":      "an object",
	"google.protobuf.Timestamp":   `a time such as "2006-01-02T15:04:05Z"`,
	"google.protobuf.UInt32Value": "a uint32",
	"google.protobuf.UInt64Value": "a uint64",
	"google.protobuf.Value":       "a number of 64 bits", // all else fits
}

// scalarForm returns the JSON form of a field that is not a message.
func scalarForm(field protoreflect.FieldDescriptor) string {
	switch enum := field.Enum(); {
	case enum != nil && enum.Values().Len() <= 12:
		var names []string
		for i := range enum.Values().Len() {
			names = append(names, string(enum.Values().Get(i).Name()))
		}
		return "one of " + strings.Join(names, ", ")
	case enum != nil:
		return "a name of enum " + string(enum.FullName())
	case field.Kind() == protoreflect.BoolKind:
		return "true or false"
	case field.Kind() == protoreflect.BytesKind:
		return "a string of base64"
	case strings.HasPrefix(field.Kind().String(), "i"):
		return "an " + field.Kind().String()
	}
	return "a " + field.Kind().String()
}
