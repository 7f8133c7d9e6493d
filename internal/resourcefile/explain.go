package resourcefile

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// explain says why protojson stopped at a token of a resource. protojson gives no
// more than the place; the cause is found again in the schema, so that neither a
// value nor the wording of protojson, which changes on purpose, gets into an error.
func explain(resource *node, md protoreflect.MessageDescriptor, o origin) *Error {
	if o.node == nil {
		return failAt(resource, ReasonInvalid, "does not decode as %s; compare it with the message's reference", md.FullName())
	}
	s := schema{root: resource, message: md}
	if o.key {
		return s.explainKey(o.node)
	}
	return s.explainValue(o.node)
}

// schema finds the types of the nodes below a resource.
type schema struct {
	root    *node
	message protoreflect.MessageDescriptor
}

// shape is what the schema says of a node. The zero value is free-form or unknown.
type shape struct {
	message   protoreflect.MessageDescriptor // of a message
	field     protoreflect.FieldDescriptor   // of a field, a list item or a map value
	container bool                           // the node is the list or the map itself
}

const anyName protoreflect.FullName = "google.protobuf.Any"

func (s schema) of(n *node) shape {
	if n == s.root {
		return shape{message: s.message}
	}
	parent := s.of(n.parent)
	if parent.container {
		field := parent.field
		if field.IsMap() {
			field = field.MapValue()
		}
		return shape{message: field.Message(), field: field}
	}
	md := s.body(n.parent, parent.message)
	if md == nil {
		return shape{}
	}
	if parent.message.FullName() == anyName && n.key == "value" && wellKnown(md) {
		return shape{message: md}
	}
	field := fieldOf(md, n.key)
	if field == nil {
		return shape{}
	}
	if field.IsList() || field.IsMap() {
		return shape{field: field, container: true}
	}
	return shape{message: field.Message(), field: field}
}

// body is the message whose fields are the keys of n: that of an Any is named by its
// @type. It is nil if that is not known.
func (s schema) body(n *node, md protoreflect.MessageDescriptor) protoreflect.MessageDescriptor {
	if md == nil || md.FullName() != anyName {
		return md
	}
	found, err := protoregistry.GlobalTypes.FindMessageByURL(n.textOf("@type"))
	if err != nil {
		return nil
	}
	return found.Descriptor()
}

// wellKnown messages have a JSON form of their own. In an Any it is under "value".
func wellKnown(md protoreflect.MessageDescriptor) bool {
	if md.FullName().Parent() != "google.protobuf" {
		return false
	}
	_, ok := wellKnownForms[md.Name()]
	return ok
}

func fieldOf(md protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if field := md.Fields().ByJSONName(key); field != nil {
		return field
	}
	return md.Fields().ByTextName(key)
}

// explainKey is for a key at which protojson stopped.
func (s schema) explainKey(n *node) *Error {
	parent := s.of(n.parent)
	if parent.container && parent.field.IsMap() {
		return failAtKey(n, ReasonInvalid, "expects a key that is %s", expectScalar(parent.field.MapKey()))
	}
	md := s.body(n.parent, parent.message)
	if md == nil {
		return failAtKey(n, ReasonInvalid, "the key does not fit here; compare it with the reference")
	}
	field := fieldOf(md, n.key)
	if field == nil || wellKnown(md) {
		return failAtKey(n, ReasonUnknownField, "not a field of %s; remove it or correct its name", md.FullName())
	}
	for _, sibling := range n.parent.children {
		other := fieldOf(md, sibling.key)
		if sibling == n || other == nil {
			continue
		}
		if other == field {
			return failAtKey(n, ReasonDuplicateKey, "the field is set twice, in two spellings of its name; keep one")
		}
		if oneof := field.ContainingOneof(); oneof != nil && other.ContainingOneof() == oneof {
			return failAtKey(n, ReasonInvalid, "%s and %s exclude each other; keep one", other.Name(), field.Name())
		}
	}
	return failAtKey(n, ReasonInvalid, "the field does not fit here; compare it with the reference")
}

// explainValue is for a value at which protojson stopped.
func (s schema) explainValue(n *node) *Error {
	if n.key == "@type" && n != s.root {
		if parent := s.of(n.parent); parent.message != nil && parent.message.FullName() == anyName {
			return explainType(n)
		}
	}
	is := s.of(n)
	if is.message != nil && is.message.FullName() == anyName && n.kind == object {
		return failAt(n, ReasonMissingType, `no type is given; add the key "@type" with the type URL of the message`)
	}
	expected := expect(is)
	if expected == "" {
		return failAt(n, ReasonInvalid, "%s does not fit here; compare it with the reference", n.kind)
	}
	hint := ""
	if strings.HasPrefix(expected, "a string") {
		hint = quoteHint(n)
	}
	return failAt(n, ReasonInvalid, "expects %s, found %s%s", expected, found(n), hint)
}

// explainType is for the @type of an Any.
func explainType(n *node) *Error {
	switch {
	case n.kind != text:
		return failAt(n, ReasonInvalid, "expects a type URL, found %s", n.kind)
	case safeType(n.text):
		return failAt(n, ReasonUnknownType, "%s is not a message that this program links; correct the name, or use a release that has it", n.text)
	}
	return failAt(n, ReasonUnknownType, "not a type URL that this program knows; write type.googleapis.com/ and the full name of the message")
}

// found is the kind of n. Where the kind is right, the content is not.
func found(n *node) string {
	if n.kind == text || n.kind == number {
		return n.kind.String() + " that does not fit"
	}
	return n.kind.String()
}

// expect describes in words what is. It is "" where the schema does not say.
func expect(is shape) string {
	switch {
	case is.container && is.field.IsList():
		return "a list"
	case is.container:
		return "an object of " + string(is.field.Name())
	case is.message != nil:
		return expectMessage(is.message)
	case is.field != nil:
		return expectScalar(is.field)
	}
	return ""
}

// wellKnownForms says how JSON writes the messages of google.protobuf.
var wellKnownForms = map[protoreflect.Name]string{
	"Any":         `an object with an "@type"`,
	"BoolValue":   "true or false",
	"BytesValue":  "a string of base64",
	"DoubleValue": "a number",
	"Duration":    `a duration in seconds such as "1.5s"`,
	"Empty":       "an empty object",
	"FieldMask":   "field names with commas between",
	"FloatValue":  "a number",
	"Int32Value":  "a 32-bit integer",
	"Int64Value":  "a 64-bit integer",
	"ListValue":   "a list",
	"StringValue": "a string",
	"Struct":      "an object",
	"Timestamp":   `a time such as "2006-01-02T15:04:05Z"`,
	"UInt32Value": "a 32-bit integer, not negative",
	"UInt64Value": "a 64-bit integer, not negative",
	"Value":       "a value",
}

func expectMessage(md protoreflect.MessageDescriptor) string {
	if wellKnown(md) {
		return wellKnownForms[md.Name()]
	}
	return fmt.Sprintf("an object (%s)", md.FullName())
}

func expectScalar(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return "a 32-bit integer"
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return "a 64-bit integer"
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return "a 32-bit integer, not negative"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "a 64-bit integer, not negative"
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return "a number"
	case protoreflect.BytesKind:
		return "a string of base64"
	case protoreflect.EnumKind:
		return expectEnum(fd.Enum())
	}
	return "a string"
}

func expectEnum(ed protoreflect.EnumDescriptor) string {
	const most = 12
	if ed.Values().Len() > most {
		return "a name of enum " + string(ed.FullName())
	}
	names := make([]string, ed.Values().Len())
	for i := range names {
		names[i] = string(ed.Values().Get(i).Name())
	}
	return "one of " + strings.Join(names, ", ")
}
