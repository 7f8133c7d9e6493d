package resourcefile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Reason is the kind of an Error, for programs.
type Reason string

// The reasons of an Error.
const (
	ReasonEmpty             Reason = "empty"              // no document, or a patch that changes nothing
	ReasonMalformed         Reason = "malformed"          // not JSON or not YAML
	ReasonMultipleDocuments Reason = "multiple_documents" // more than one document in a file
	ReasonTooDeep           Reason = "too_deep"           // nested too deeply, or aliases that expand too far
	ReasonDuplicateKey      Reason = "duplicate_key"      // a key twice in one object
	ReasonUnknownField      Reason = "unknown_field"      // a key that the form or the message does not have
	ReasonMissingVersion    Reason = "missing_version"    // no version for a type with resources
	ReasonMissingResources  Reason = "missing_resources"  // no list of resources
	ReasonMissingType       Reason = "missing_type"       // no @type or type_url
	ReasonUnservedType      Reason = "unserved_type"      // a resource of a type that xDS does not serve
	ReasonUnknownType       Reason = "unknown_type"       // an @type that this program does not link
	ReasonMissingName       Reason = "missing_name"       // a resource without a name
	ReasonDuplicateName     Reason = "duplicate_name"     // two resources of one type and name
	ReasonInvalid           Reason = "invalid"            // a value of the wrong kind, or against Envoy's rules
)

// Error is the reason for which a body is refused. Message contains the position and
// the remedy. It contains names of fields, types and resources, and no value.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

func errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// fail ends the reading of a body: it panics with an *Error, which catch returns.
func fail(reason Reason, format string, args ...any) { panic(errorf(reason, format, args...)) }

// catch is deferred by the functions that return errors.
func catch(err *error) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		*err = e
	default:
		panic(e)
	}
}

// fail fails because of the value n. The error is such as
//
//	resources[2] (envoy.config.cluster.v3.Cluster "a"), field eds_cluster_config.eds_config, line 7:5: …
func (n *node) fail(reason Reason, format string, args ...any) {
	n.failAt(n.at, reason, format, args...)
}

// failAt is fail with another position, such as that of the key.
func (n *node) failAt(at position, reason Reason, format string, args ...any) {
	item, field := "", ""
	for ; n.parent != nil; n = n.parent {
		switch above := n.parent; {
		case above.kind == object:
			field = "." + shown(n.key) + field
		case slices.Contains([]string{"resources", "upsert", "delete"}, above.key) && above.parent.parent == nil:
			item = fmt.Sprintf("%s[%d]%s, ", above.key, n.index, n.identity())
			n = above
		default:
			field = fmt.Sprintf("[%d]%s", n.index, field)
		}
	}
	if field != "" {
		field = "field " + strings.TrimPrefix(field, ".") + ", "
	}
	fail(reason, "%s%s%s: %s", item, field, at, fmt.Sprintf(format, args...))
}

// forms are the types whose name does not say how to write a value.
var forms = map[protoreflect.FullName]string{
	"bytes":                     "base64 string",
	"google.protobuf.Duration":  `duration in seconds such as "1.5s"`,
	"google.protobuf.Timestamp": `time such as "2006-01-02T15:04:05Z"`,
	"google.protobuf.Value":     "number of 64 bits", // all else fits
}

func valid(name protoreflect.FullName) string { return "a valid " + cmp.Or(forms[name], string(name)) }

// misfit fails because n is not what is wanted.
func (n *node) misfit(want string) {
	found := n.kind
	if strings.Contains(strings.ToLower(want), "string") && (found == number || found == boolean) {
		found += "; quote it"
	}
	n.fail(ReasonInvalid, "expects %s, found %s", want, found)
}

// identity returns ` (type "name")` of a resource, as far as they are present.
func (n *node) identity() string {
	text := make(map[string]string)
	for _, c := range n.children {
		if c.kind == str {
			text[c.key] = c.text
		}
	}
	typeURL, name := cmp.Or(text["@type"], text["type_url"]), text["name"]
	switch inner := n.member("resource"); {
	case typeURL == resourceWrapper && inner != nil:
		return inner.identity()
	case text["@type"] == resource.EndpointType:
		name = cmp.Or(text["cluster_name"], text["clusterName"])
	}
	var id []string
	if typePattern.MatchString(typeURL) {
		id = append(id, shortType(typeURL))
	}
	if name != "" {
		id = append(id, fmt.Sprintf("%.128q", name))
	}
	if id == nil {
		return ""
	}
	return " (" + strings.Join(id, " ") + ")"
}

// A misplaced value can be in the place of a key or of a type. An error contains only
// what looks like one; a line of base64 does not, because it has no words.
var (
	keyPattern  = regexp.MustCompile(`^@?[A-Za-z0-9]{1,40}([._-]+[A-Za-z0-9]{1,40})*$`)
	typePattern = regexp.MustCompile(`^type\.googleapis\.com/[A-Za-z_]\w{0,60}(\.[A-Za-z_]\w{0,60}){1,15}$`)
)

func shown(key string) string {
	if typePattern.MatchString(key) || len(key) <= 100 && keyPattern.MatchString(key) {
		return key
	}
	return "(key not shown)"
}
