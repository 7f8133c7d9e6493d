package resourcefile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"go.yaml.in/yaml/v3"
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

// failAt fails because of n, a key or a value in the tree. The error is such as
//
//	resources[2] (envoy.config.cluster.v3.Cluster "a"), field eds_cluster_config.eds_config, line 7:5: …
func (t *tree) failAt(n *yaml.Node, reason Reason, format string, args ...any) {
	t.failIn(n, n, reason, format, args...)
}

// failIn fails because of a part of n that is not in the tree.
func (t *tree) failIn(n, part *yaml.Node, reason Reason, format string, args ...any) {
	steps, nodes := pathTo(t.root, n)
	where := ""
	if len(steps) > 1 && slices.Contains([]string{".resources", ".upsert", ".delete"}, steps[0]) && steps[1][0] == '[' {
		where = steps[0][1:] + steps[1] + identity(nodes[1]) + ", "
		steps = steps[2:]
	}
	if len(steps) > 0 {
		where += "field " + strings.TrimPrefix(strings.Join(steps, ""), ".") + ", "
	}
	fail(reason, "%sline %s: %s", where, t.position(part), fmt.Sprintf(format, args...))
}

func (t *tree) position(n *yaml.Node) string {
	if n.Line == 0 {
		return endOf(t.data[:n.Column])
	}
	return fmt.Sprintf("%d:%d", n.Line, n.Column)
}

// misfit fails because n is not what is wanted.
func (t *tree) misfit(n *yaml.Node, want string) {
	found := kinds[n.Tag]
	switch plain := want == "a string" || want == "a list" || strings.HasPrefix(want, "an object"); {
	case want == "a string" && (found == "a number" || found == "a boolean"):
		found += "; quote it"
	case !plain && (found == "a number" || found == "a string"):
		found += " that does not fit"
	}
	t.failAt(n, ReasonInvalid, "expects %s, found %s", want, found)
}

// pathTo returns the keys and indexes that lead from n to target, and their values.
// They are nil if target is n or is not below n.
func pathTo(n, target *yaml.Node) (steps []string, nodes []*yaml.Node) {
	for i, child := range n.Content {
		steps, nodes := pathTo(child, target)
		if steps == nil && child != target {
			continue
		}
		step := fmt.Sprintf("[%d]", i)
		if n.Kind == yaml.MappingNode {
			step = "." + safeKey(n.Content[i-i%2].Value)
		}
		return append([]string{step}, steps...), append([]*yaml.Node{child}, nodes...)
	}
	return nil, nil
}

// identity returns ` (type "name")` of a resource, as far as they are present.
func identity(n *yaml.Node) string {
	typeURL := textOf(n, "@type", "type_url")
	if inner := member(n, "resource"); inner != nil && typeURL == resourceWrapper {
		return identity(inner)
	}
	var id string
	if safeType(typeURL) {
		id = " " + shortType(typeURL)
	}
	if name := textOf(n, nameKeys(typeURL)...); name != "" {
		id += fmt.Sprintf(" %q", clip(name))
	}
	if id == "" {
		return ""
	}
	return " (" + id[1:] + ")"
}

// textOf returns the string under a key, or "".
func textOf(n *yaml.Node, keys ...string) string {
	if v := member(n, keys...); v != nil && v.Tag == "!!str" {
		return v.Value
	}
	return ""
}

// nameKeys are the keys under which a type keeps its name.
func nameKeys(typeURL string) []string {
	if typeURL == resource.EndpointType {
		return []string{"cluster_name", "clusterName"}
	}
	return []string{"name"}
}

// A misplaced value can be in the place of a key or of a type. An error contains only
// what looks like one; a line of base64 does not, because it has no words.
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

// clip shortens a long name.
func clip(name string) string {
	const most = 128
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
