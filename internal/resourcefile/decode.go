package resourcefile

import (
	"regexp"
	"strconv"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
)

// readResource reads a resource, which may be wrapped to have a TTL.
func readResource(n *node) (Resource, error) {
	typeURL, err := readTypeURL(n, "@type")
	if err != nil {
		return Resource{}, err
	}
	if typeURL == resourceWrapper {
		return readWrapped(n)
	}
	message, err := decode(n, typeURL)
	if err != nil {
		return Resource{}, err
	}
	name := cachev3.GetResourceName(message)
	if name == "" {
		return Resource{}, failAt(n, ReasonMissingName, "the resource has no name; add the key %q", nameKeys(typeURL)[0])
	}
	if err := validate(n, message); err != nil {
		return Resource{}, err
	}
	return Resource{TypeURL: typeURL, Name: name, Message: message}, nil
}

func readWrapped(n *node) (Resource, error) {
	if err := checkKeys(n, "@type", "name", "ttl", "resource"); err != nil {
		return Resource{}, err
	}
	inner := n.member("resource")
	if inner == nil || inner.kind != object {
		return Resource{}, failAt(n, ReasonInvalid, `the wrapper holds no resource; add the key "resource" with an object`)
	}
	if inner.textOf("@type") == resourceWrapper {
		return Resource{}, failAt(inner, ReasonUnservedType, "a wrapper is inside a wrapper; keep one")
	}
	r, err := readResource(inner)
	if err != nil {
		return Resource{}, err
	}
	name, err := readString(n.member("name"))
	if err != nil {
		return Resource{}, err
	}
	if name != "" && name != r.Name {
		return Resource{}, failAt(n.member("name"), ReasonInvalid, "the wrapper has another name than its resource; leave it out, or make them equal")
	}
	r.TTL, err = readTTL(n.member("ttl"))
	return r, err
}

func readTTL(n *node) (*time.Duration, error) {
	if n == nil || n.kind == null {
		return nil, nil
	}
	var d durationpb.Duration
	if protojson.Unmarshal(n.json, &d) != nil || n.kind != text {
		return nil, failAt(n, ReasonInvalid, `expects a duration in seconds such as "5s" or "0.5s"`)
	}
	ttl := d.AsDuration()
	if ttl <= 0 || !proto.Equal(durationpb.New(ttl), &d) {
		return nil, failAt(n, ReasonInvalid, "a TTL is more than zero and less than 292 years; leave it out for none")
	}
	return &ttl, nil
}

// decode reads the message of an object, its @type aside.
func decode(n *node, typeURL string) (proto.Message, error) {
	found, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		return nil, failAt(n.member("@type"), ReasonUnknownType, "this program does not link the type; use one that links Envoy's messages")
	}
	message := found.New().Interface()
	var t tokens
	t.value(n, "@type")
	if err := protojson.Unmarshal(t.json.Bytes(), message); err != nil {
		return nil, explain(n, found.Descriptor(), t.originOf(err))
	}
	return message, nil
}

// protojsonLine finds the line that heads an error of protojson. The text after it
// can hold any value, a private key too, and nothing else of it is used.
var protojsonLine = regexp.MustCompile(`^[^(]*\(line (\d+):`)

// originOf returns where the token stood at which protojson stopped; its node is nil
// if protojson does not say.
func (t *tokens) originOf(err error) origin {
	m := protojsonLine.FindStringSubmatch(err.Error())
	if m == nil {
		return origin{}
	}
	line, err := strconv.Atoi(m[1])
	if err != nil || line < 1 || line > len(t.origin) {
		return origin{}
	}
	return t.origin[line-1]
}
