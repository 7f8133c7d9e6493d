package resourcefile

import (
	"errors"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// validator is what protoc-gen-validate adds to a message.
type validator interface{ Validate() error }

// violation is an error of protoc-gen-validate. Its Reason is text out of the .proto
// file; its Error can hold values, by way of map keys and the errors of other
// packages, and is not used.
type violation interface {
	error
	Field() string
	Reason() string
	Cause() error
}

// validate holds a message to the rules that Envoy declares for it, and does the same
// with the messages packed in it: Envoy checks those when it unpacks them.
func validate(n *node, message proto.Message) error {
	if v, ok := message.(validator); ok {
		if err := v.Validate(); err != nil {
			return explainViolation(n, message.ProtoReflect().Descriptor(), err)
		}
	}
	return validatePacked(n, message.ProtoReflect())
}

// validatePacked looks for the messages packed below m.
func validatePacked(n *node, m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch at := n.field(fd); {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				err = validateBelow(orSelf(at.member(key.String()), at), v.Message())
				return err == nil
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				if err = validateBelow(at.item(i), v.List().Get(i).Message()); err != nil {
					return false
				}
			}
		default:
			err = validateBelow(at, v.Message())
		}
		return err == nil
	})
	return err
}

func validateBelow(n *node, m protoreflect.Message) error {
	packed, ok := m.Interface().(*anypb.Any)
	if !ok {
		return validatePacked(n, m)
	}
	if packed.GetTypeUrl() == "" {
		return nil
	}
	message, err := packed.UnmarshalNew()
	if err != nil {
		return failAt(n, ReasonInvalid, "the packed message does not decode; write it with its fields")
	}
	return validate(n, message)
}

// field is the member of n for a field, in either spelling, or n if it is not there,
// as when a field has no JSON of its own.
func (n *node) field(fd protoreflect.FieldDescriptor) *node {
	return orSelf(n.member(fd.JSONName(), fd.TextName()), n)
}

// item is the i-th item of a list, or n.
func (n *node) item(i int) *node {
	if n.kind == list && i >= 0 && i < len(n.children) {
		return n.children[i]
	}
	return n
}

func orSelf(n, self *node) *node {
	if n == nil {
		return self
	}
	return n
}

// explainViolation names the rule that is broken, and the innermost field.
func explainViolation(n *node, md protoreflect.MessageDescriptor, err error) *Error {
	var v violation
	for errors.As(err, &v) {
		goName, index, _ := strings.Cut(strings.TrimSuffix(v.Field(), "]"), "[")
		field, name := ruled(md, goName)
		var inner violation
		if field == nil || field.Message() == nil || !errors.As(v.Cause(), &inner) {
			return errViolation(n, field, name, index, v.Reason())
		}
		n, md, err = descend(n, field, index), valueOf(field), inner
	}
	return failAt(n, ReasonInvalid, "breaks a rule of %s; compare it with the message's reference", md.FullName())
}

func errViolation(n *node, field protoreflect.FieldDescriptor, name, index, reason string) *Error {
	if field != nil && n.member(field.JSONName(), field.TextName()) != nil {
		return failAt(descend(n, field, index), ReasonInvalid, "%s", reason)
	}
	return failAt(n, ReasonInvalid, "%s: %s", name, reason)
}

// descend goes to a field, and to an item of it that index names.
func descend(n *node, field protoreflect.FieldDescriptor, index string) *node {
	n = n.field(field)
	if field.IsMap() {
		return orSelf(n.member(index), n)
	}
	if i, err := strconv.Atoi(index); err == nil && field.IsList() {
		return n.item(i)
	}
	return n
}

func valueOf(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field.IsMap() {
		return field.MapValue().Message()
	}
	return field.Message()
}

// ruled finds the field or the oneof that a rule calls by its Go name. It returns the
// name in the .proto file; the field is nil if the name is a oneof's.
func ruled(md protoreflect.MessageDescriptor, goName string) (protoreflect.FieldDescriptor, string) {
	same := func(name protoreflect.Name) bool {
		return strings.EqualFold(strings.ReplaceAll(string(name), "_", ""), strings.ReplaceAll(goName, "_", ""))
	}
	for i := range md.Fields().Len() {
		if field := md.Fields().Get(i); same(field.Name()) {
			return field, string(field.Name())
		}
	}
	for i := range md.Oneofs().Len() {
		if oneof := md.Oneofs().Get(i); same(oneof.Name()) {
			return nil, string(oneof.Name())
		}
	}
	return nil, goName
}
