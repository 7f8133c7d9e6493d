package resourcefile

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// decode reads n into message. The text of protojson's error can contain any value and
// is not used: locate looks for the value that does not fit.
func (n *node) decode(message proto.Message) {
	if protojson.Unmarshal(n.appendJSON(nil), message) != nil {
		md := message.ProtoReflect().Descriptor()
		n.locate(md)
		n.fail(ReasonInvalid, "does not decode as %s; compare it with the message's reference", md.FullName())
	}
}

// locate fails at the first value in n that does not fit md. It decodes only scalars,
// each one alone.
func (n *node) locate(md protoreflect.MessageDescriptor) {
	switch {
	case !hasOwnForm(md):
		n.locateFields(md)
	case md.FullName() == "google.protobuf.Any" && n.kind == object:
		n.locatePacked()
	default:
		for _, c := range n.children {
			c.locate(valueMessage)
		}
		if (md != valueMessage || n.json != nil) && !fits(n.appendJSON(nil), md) {
			n.misfit(valid(md.FullName()))
		}
	}
}

// hasOwnForm reports whether the JSON of a message is not an object of its fields.
func hasOwnForm(md protoreflect.MessageDescriptor) bool {
	return md.FullName().Parent() == "google.protobuf"
}

// valueMessage is the message of any JSON, which is in Struct and ListValue.
var valueMessage = (*structpb.Value)(nil).ProtoReflect().Descriptor()

func fits(json []byte, md protoreflect.MessageDescriptor) bool {
	return protojson.Unmarshal(json, dynamicpb.NewMessage(md)) == nil
}

// locateFields is locate for a message without a form of its own.
func (n *node) locateFields(md protoreflect.MessageDescriptor) {
	if n.kind != object {
		n.misfit(valid(md.FullName()))
	}
	seen := make(map[protoreflect.Descriptor]protoreflect.Name) // fields and oneofs
	for _, c := range n.children {
		field := cmp.Or(md.Fields().ByJSONName(c.key), md.Fields().ByTextName(c.key))
		if field == nil {
			c.failAt(c.keyAt, ReasonUnknownField, "not a field of %s; remove it or correct its name", md.FullName())
		}
		if seen[field] != "" {
			c.failAt(c.keyAt, ReasonDuplicateKey, "the field is set twice, in two spellings of its name; keep one")
		}
		seen[field] = field.Name()
		if c.kind == null {
			continue
		}
		if oneof := field.ContainingOneof(); oneof != nil {
			if seen[oneof] != "" {
				c.failAt(c.keyAt, ReasonInvalid, "%s and %s exclude each other; keep one", seen[oneof], field.Name())
			}
			seen[oneof] = field.Name()
		}
		c.locateField(field)
	}
}

// locateField is locate for the value of a field.
func (n *node) locateField(field protoreflect.FieldDescriptor) {
	values, form := []*node{n}, `{%q:%s}`
	switch {
	case field.IsMap():
		for _, c := range n.want(object).children {
			if !fits(fmt.Appendf(nil, `{"key":%s}`, quote(c.key)), field.Message()) {
				c.failAt(c.keyAt, ReasonInvalid, "expects a key that is %s", valid(protoreflect.FullName(field.MapKey().Kind().String())))
			}
		}
		values, field = n.children, field.MapValue()
	case field.IsList():
		values, form = n.want(list).children, `{%q:[%s]}`
	}
	for _, v := range values {
		if field.Message() != nil {
			v.locate(field.Message())
		} else if v.kind == null || !fits(fmt.Appendf(nil, form, field.TextName(), v.appendJSON(nil)), field.ContainingMessage()) {
			name := protoreflect.FullName(field.Kind().String())
			if field.Enum() != nil {
				name = field.Enum().FullName()
			}
			v.misfit(valid(name))
		}
	}
}

// locatePacked is locate for an Any.
func (n *node) locatePacked() {
	name := n.member("@type")
	switch {
	case len(n.children) == 0:
		return
	case name == nil:
		n.fail(ReasonMissingType, `no type is given; add the key "@type" with the type URL of the message`)
	}
	found, err := protoregistry.GlobalTypes.FindMessageByURL(name.want(str).text)
	switch {
	case err != nil:
		name.fail(ReasonUnknownType, "%s is not a message that this program links; correct the name, or use a release that has it", cmp.Or(typePattern.FindString(name.text), "the value"))
	case !hasOwnForm(found.Descriptor()):
		n.without("@type").locateFields(found.Descriptor())
		return
	}
	n.checkKeys("@type", "value")
	value := n.member("value")
	if value == nil {
		n.fail(ReasonInvalid, `the message has no value; add the key "value"`)
	}
	value.locate(found.Descriptor())
}

// violation is an error of protoc-gen-validate. Its Reason is text from the .proto
// file. Its Error can contain values and is not used.
type violation interface {
	error
	Field() string // a Go name, such as TypedConfig, Filters[0] or Options[key]
	Reason() string
	Cause() error
}

// validate checks the rules that Envoy declares for a message, and for the messages
// packed in it, which Envoy checks when it unpacks them.
func (n *node) validate(message proto.Message) {
	_ = protorange.Options{Stable: true}.Range(message.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if kind := last.Step.Kind(); kind != protopath.RootStep && kind != protopath.AnyExpandStep {
			return nil
		}
		if v, ok := last.Value.Message().Interface().(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				n.failRule(p.Path, err)
			}
		}
		return nil
	}, nil)
}

var wordStart = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// failRule fails at the innermost value that breaks a rule: one in the message at path,
// or in n itself as far as n has the fields that lead there.
func (n *node) failRule(path protopath.Path, err error) {
	var steps []string
	for _, step := range path {
		switch step.Kind() {
		case protopath.FieldAccessStep, protopath.ListIndexStep:
			steps = append(steps, strings.Trim(step.String(), ".[]")) // such as .filters or [0]
		case protopath.MapIndexStep:
			steps = append(steps, step.MapIndex().String())
		}
	}
	reason := "breaks a rule of its type; compare it with the message's reference"
	for v := violation(nil); errors.As(err, &v); err = v.Cause() {
		field := wordStart.ReplaceAllString(v.Field(), "${1}_$2")
		steps = append(steps, strings.FieldsFunc(field, func(r rune) bool { return r == '[' || r == ']' })...)
		reason = v.Reason()
	}
	for len(steps) > 0 && n.child(steps[0]) != nil {
		n, steps = n.child(steps[0]), steps[1:]
	}
	for i := len(steps) - 1; i >= 0; i-- {
		reason = shown(strings.ToLower(steps[i])) + ": " + reason
	}
	n.fail(ReasonInvalid, "%s", reason)
}

// child returns a member or an item, or nil. The name of a field can be that of Go, of
// JSON or of the .proto file: they differ in case and underscores.
func (n *node) child(name string) *node {
	if c := n.member(name); c != nil {
		return c
	}
	for _, c := range n.children {
		key := cmp.Or(c.key, strconv.Itoa(c.index))
		if strings.EqualFold(strings.ReplaceAll(key, "_", ""), strings.ReplaceAll(name, "_", "")) {
			return c
		}
	}
	return nil
}
