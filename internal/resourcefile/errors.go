package resourcefile

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Reason says what kind of thing is wrong, for programs.
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

// Error says why a body was refused. Message names the place and the remedy; it
// holds field, type and resource names, and no value.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

func errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// failAt reports a value at its place.
func failAt(n *node, reason Reason, format string, args ...any) *Error {
	return errorf(reason, "%s: %s", place(n, n.at), fmt.Sprintf(format, args...))
}

// failAtKey reports a member of an object at its key.
func failAtKey(n *node, reason Reason, format string, args ...any) *Error {
	return errorf(reason, "%s: %s", place(n, n.keyAt), fmt.Sprintf(format, args...))
}

// place reads such as
//
//	resources[2] (envoy.config.cluster.v3.Cluster "a"), field eds_cluster_config.eds_config, line 7:5
func place(n *node, at position) string {
	chain := n.chain()
	var parts []string
	if len(chain) >= 2 && chain[1].key == "" && isResourceList(chain[0].key) {
		parts = append(parts, fmt.Sprintf("%s[%d]%s", chain[0].key, chain[1].index, identity(chain[1])))
		chain = chain[2:]
	}
	if len(chain) > 0 {
		parts = append(parts, "field "+path(chain))
	}
	if at.line > 0 {
		parts = append(parts, "line "+at.String())
	}
	if len(parts) == 0 {
		return "document"
	}
	return strings.Join(parts, ", ")
}

func isResourceList(key string) bool {
	return key == "resources" || key == "upsert" || key == "delete"
}

func path(chain []*node) string {
	var b strings.Builder
	for i, n := range chain {
		switch {
		case n.parent.kind == list:
			fmt.Fprintf(&b, "[%d]", n.index)
		case i == 0:
			b.WriteString(safeKey(n.key))
		default:
			b.WriteString("." + safeKey(n.key))
		}
	}
	return b.String()
}

// identity is ` (type "name")`, as far as the resource says them.
func identity(n *node) string {
	if inner := n.member("resource"); inner != nil && n.textOf("@type") == resourceWrapper {
		return identity(inner)
	}
	typeURL := n.textOf("@type")
	if typeURL == "" {
		typeURL = n.textOf("type_url")
	}
	var parts []string
	if safeType(typeURL) {
		parts = append(parts, shortType(typeURL))
	}
	if name := n.textOf(nameKeys(typeURL)...); name != "" {
		parts = append(parts, fmt.Sprintf("%q", clip(name)))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, " ") + ")"
}

// nameKeys are the keys under which a type keeps its name.
func nameKeys(typeURL string) []string {
	if typeURL == resource.EndpointType {
		return []string{"cluster_name", "clusterName"}
	}
	return []string{"name"}
}

// A misplaced value can end up where a key or a type belongs, so that only what
// looks like one is repeated in an error: a line of base64 is no key, for it has no
// words.
var (
	keyPattern  = regexp.MustCompile(`^@?[A-Za-z0-9]{1,40}([._-]+[A-Za-z0-9]{1,40})*$`)
	typePattern = regexp.MustCompile(`^type\.googleapis\.com/[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$`)
)

func safeKey(key string) string {
	if safeType(key) || len(key) <= 100 && keyPattern.MatchString(key) {
		return key
	}
	return "(key not shown)"
}

func safeType(typeURL string) bool {
	return len(typeURL) <= 200 && typePattern.MatchString(typeURL)
}

// clip keeps an overlong name from filling an error.
func clip(name string) string {
	const most = 128
	if utf8.RuneCountInString(name) <= most {
		return name
	}
	return string([]rune(name)[:most]) + "…"
}
