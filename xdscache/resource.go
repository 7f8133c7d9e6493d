package xdscache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/xdswal/xdswal/journal"
)

// Resource is a resource as go-control-plane serves it: a message that is marshaled by
// copying its bytes, and that decodes them when its fields are read. proto.Equal reports
// it equal to the message that was set; Decoded returns that message. It is immutable
// and safe for concurrent use.
type Resource journal.Resource

var (
	_ types.ResourceWithName = (*Resource)(nil)
	_ protoreflect.Message   = (*message)(nil)
)

// GetName returns the resource's name.
func (r *Resource) GetName() string { return r.Name }

// String returns the resource's type, name and size, and nothing of its contents.
func (r *Resource) String() string {
	return fmt.Sprintf("%s %q (%d bytes)", r.TypeURL, r.Name, len(r.Value))
}

// GoString returns String, so that %#v prints nothing of the contents.
func (r *Resource) GoString() string { return r.String() }

// LogValue returns String, so that a log contains nothing of the contents.
func (r *Resource) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Decoded returns a new copy of the message that was set, for example a
// *clusterv3.Cluster. If the type is not linked into the program, it returns an Empty
// with the resource in its unknown fields. The error means that the bytes are not a
// message of the type.
func (r *Resource) Decoded() (proto.Message, error) {
	m := messageType(r.TypeURL).New().Interface()
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode resource %q of type %s: the bytes are not a message of the type", r.Name, r.TypeURL)
	}
	return m, nil
}

// ProtoReflect returns the resource's reflective view.
func (r *Resource) ProtoReflect() protoreflect.Message { return &message{r: r} }

func messageType(typeURL string) protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		return (*emptypb.Empty)(nil).ProtoReflect().Type()
	}
	return t
}

// message is the reflective view of a resource. Marshaling uses methods and decodes
// nothing. Other uses decode the resource once per view.
type message struct {
	r       *Resource
	once    sync.Once
	decoded protoreflect.Message
}

var methods = protoiface.Methods{
	Flags: protoiface.SupportMarshalDeterministic,
	Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
		return protoiface.SizeOutput{Size: len(in.Message.(*message).r.Value)}
	},
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: append(in.Buf, in.Message.(*message).r.Value...)}, nil
	},
	// The message was marshaled, so its required fields are set.
	CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
		return protoiface.CheckInitializedOutput{}, nil
	},
}

// decode returns the decoded message. It cannot return an error: if the bytes cannot be
// decoded, it returns a message that is not valid.
func (m *message) decode() protoreflect.Message {
	m.once.Do(func() {
		decoded, err := m.r.Decoded()
		if err != nil {
			m.decoded = m.Type().Zero()
			return
		}
		m.decoded = decoded.ProtoReflect()
	})
	return m.decoded
}

func (m *message) Descriptor() protoreflect.MessageDescriptor { return m.Type().Descriptor() }
func (m *message) Type() protoreflect.MessageType             { return messageType(m.r.TypeURL) }
func (m *message) New() protoreflect.Message                  { return m.Type().New() }
func (m *message) Interface() protoreflect.ProtoMessage       { return m.r }
func (m *message) ProtoMethods() *protoiface.Methods          { return &methods }
func (m *message) IsValid() bool                              { return true }
func (m *message) GetUnknown() protoreflect.RawFields         { return m.decode().GetUnknown() }

func (m *message) Range(f func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {
	m.decode().Range(f)
}

func (m *message) Has(fd protoreflect.FieldDescriptor) bool { return m.decode().Has(fd) }

func (m *message) Get(fd protoreflect.FieldDescriptor) protoreflect.Value {
	return m.decode().Get(fd)
}

func (m *message) WhichOneof(od protoreflect.OneofDescriptor) protoreflect.FieldDescriptor {
	return m.decode().WhichOneof(od)
}

func (m *message) NewField(fd protoreflect.FieldDescriptor) protoreflect.Value {
	return m.decode().NewField(fd)
}

// The methods that change a message panic, like those of a read-only message of the
// protobuf module.

func (m *message) Clear(protoreflect.FieldDescriptor)                   { m.panicImmutable() }
func (m *message) Set(protoreflect.FieldDescriptor, protoreflect.Value) { m.panicImmutable() }
func (m *message) SetUnknown(protoreflect.RawFields)                    { m.panicImmutable() }

func (m *message) Mutable(protoreflect.FieldDescriptor) protoreflect.Value {
	m.panicImmutable()
	return protoreflect.Value{}
}

func (m *message) panicImmutable() {
	panic(fmt.Sprintf("xdscache: %s is immutable; change a copy made by Decoded or proto.Clone", m.r))
}

// ownTypeURL returns the URL of the message's type. It differs from typeURL if a custom
// snapshot contains messages of other types than it serves.
func ownTypeURL(typeURL string, m proto.Message) string {
	name := string(m.ProtoReflect().Descriptor().FullName())
	if strings.TrimPrefix(typeURL, resourcev3.APITypePrefix) == name {
		return typeURL
	}
	return resourcev3.APITypePrefix + name
}

// hashVersion returns the version of a resource for which the caller chose none, from the
// SHA-256 of its value. It is short, because a client that reconnects sends the versions of
// all its resources.
func hashVersion(hash [sha256.Size]byte) string {
	return base64.RawURLEncoding.EncodeToString(hash[:12])
}

// isHash reports whether a version is a hash of the content: [hashVersion], or
// go-control-plane's HashResource, which go-control-plane's snapshots fill their version map with,
// and which earlier versions of xdswal used. Such a version is not the caller's own.
func isHash(version string, hash [sha256.Size]byte) bool {
	return version == hashVersion(hash) || version == hex.EncodeToString(hash[:])
}

// mayBeHash reports whether isHash can be true.
func mayBeHash(version string) bool { return len(version) == 16 || len(version) == 64 }
