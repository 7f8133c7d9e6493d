package resourcefile

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
)

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
func (t *tree) validate(n *yaml.Node, message proto.Message) {
	_ = protorange.Options{Stable: true}.Range(message.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if kind := last.Step.Kind(); kind != protopath.RootStep && kind != protopath.AnyExpandStep {
			return nil
		}
		if v, ok := last.Value.Message().Interface().(interface{ Validate() error }); ok {
			if err := v.Validate(); err != nil {
				t.failRule(follow(n, p.Path), err)
			}
		}
		return nil
	}, nil)
}

// follow returns the node at a path below n, or the last node before a step that the
// body does not have, such as that into an Any.
func follow(n *yaml.Node, path protopath.Path) *yaml.Node {
	for _, step := range path {
		next := n
		switch step.Kind() {
		case protopath.FieldAccessStep:
			next = fieldOf(n, string(step.FieldDescriptor().Name()))
		case protopath.ListIndexStep:
			next = itemOf(n, strconv.Itoa(step.ListIndex()))
		case protopath.MapIndexStep:
			next = itemOf(n, step.MapIndex().String())
		}
		if next != nil {
			n = next
		}
	}
	return n
}

// fieldOf returns the value of a field, or nil. The name can be that of Go, of JSON or
// of the .proto file: they differ in case and underscores.
func fieldOf(n *yaml.Node, name string) *yaml.Node {
	for key, value := range pairs(n) {
		if strings.EqualFold(strings.ReplaceAll(key.Value, "_", ""), strings.ReplaceAll(name, "_", "")) {
			return value
		}
	}
	return nil
}

// itemOf returns an item of a list or the value of a key, or nil.
func itemOf(n *yaml.Node, index string) *yaml.Node {
	if i, err := strconv.Atoi(index); err == nil && n.Tag == "!!seq" && 0 <= i && i < len(n.Content) {
		return n.Content[i]
	}
	return member(n, index)
}

var wordStart = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// failRule fails at the innermost field that breaks a rule.
func (t *tree) failRule(n *yaml.Node, err error) {
	var v violation
	if !errors.As(err, &v) {
		t.failAt(n, ReasonInvalid, "breaks a rule of its type; compare it with the message's reference")
	}
	name, index, _ := strings.Cut(strings.TrimSuffix(v.Field(), "]"), "[")
	field := fieldOf(n, name)
	if field == nil {
		t.failAt(n, ReasonInvalid, "%s: %s", strings.ToLower(wordStart.ReplaceAllString(name, "${1}_$2")), v.Reason())
	}
	if item := itemOf(field, index); item != nil && index != "" {
		field = item
	}
	if inner := violation(nil); errors.As(v.Cause(), &inner) {
		t.failRule(field, inner)
	}
	t.failAt(field, ReasonInvalid, "%s", v.Reason())
}
