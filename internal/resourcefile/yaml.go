package resourcefile

import (
	"bytes"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readYAML reads a file of one YAML document.
func readYAML(data []byte) (*node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, errEmpty()
	case err != nil:
		return nil, errYAML(err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, errorf(ReasonMultipleDocuments, "line %d:%d: a second document starts; keep one document a file", second.Line, second.Column)
	case !errors.Is(err, io.EOF):
		return nil, errYAML(err)
	}
	r := &yamlReader{budget: 4*len(data) + 1<<20}
	root := &node{}
	if err := r.value(document.Content[0], root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+):`)

// errYAML keeps the line of a syntax error and leaves the rest, which can repeat the
// body.
func errYAML(err error) *Error {
	const remedy = "not YAML; check indentation, quotes, tabs and anchors"
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return errorf(ReasonMalformed, "near line %s: %s there", m[1], remedy)
	}
	return errorf(ReasonMalformed, "body is %s", remedy)
}

// yamlReader makes nodes of YAML's, with aliases and merge keys expanded.
type yamlReader struct {
	// budget is what aliases may still add, in nodes and bytes: a few lines of
	// aliases to aliases would otherwise grow without bound.
	budget int
	alias  int // how many aliases the current node is inside
}

func (r *yamlReader) value(y *yaml.Node, n *node, depth int) error {
	n.at = position{y.Line, y.Column}
	if depth > maxDepth {
		return errTooDeep()
	}
	if r.alias > 0 {
		if r.budget -= 1 + len(y.Value); r.budget < 0 {
			return errorf(ReasonTooDeep, "line %d:%d: aliases expand to far more than the file holds; write the values out", y.Line, y.Column)
		}
	}
	switch y.Kind {
	case yaml.AliasNode:
		r.alias++
		defer func() { r.alias-- }()
		return r.value(y.Alias, n, depth+1)
	case yaml.SequenceNode:
		return r.list(y, n, depth)
	case yaml.MappingNode:
		n.kind = object
		return r.members(y, n, make(map[string]bool), false, depth)
	default:
		return r.scalar(y, n)
	}
}

func (r *yamlReader) list(y *yaml.Node, n *node, depth int) error {
	n.kind = list
	for _, item := range y.Content {
		if err := r.value(item, n.add("", position{}), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// members adds the pairs of a mapping to n, and then those of its merge keys, which
// yield to a key that is there already.
func (r *yamlReader) members(y *yaml.Node, n *node, seen map[string]bool, merged bool, depth int) error {
	if depth > maxDepth {
		return errTooDeep()
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := resolve(y.Content[i]), y.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" {
			return errorf(ReasonMalformed, "%s: a key is not a name; write it as a string", place(n, position{key.Line, key.Column}))
		}
		if seen[key.Value] && merged {
			continue
		}
		child := n.add(key.Value, position{y.Content[i].Line, y.Content[i].Column})
		if seen[key.Value] {
			return errDuplicateKey(child)
		}
		seen[key.Value] = true
		if err := r.value(value, child, depth+1); err != nil {
			return err
		}
	}
	for _, source := range merges {
		if err := r.merge(source, n, seen, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge adds the pairs of one mapping, or of a list of them in which the earlier one
// wins.
func (r *yamlReader) merge(y *yaml.Node, n *node, seen map[string]bool, depth int) error {
	r.alias++
	defer func() { r.alias-- }()
	at := position{y.Line, y.Column}
	sources := []*yaml.Node{resolve(y)}
	if sources[0].Kind == yaml.SequenceNode {
		sources = sources[0].Content
	}
	for _, source := range sources {
		source = resolve(source)
		if source.Kind != yaml.MappingNode {
			return errorf(ReasonMalformed, "%s: the value of << is not a mapping; merge an alias of a mapping, or a list of them", place(n, at))
		}
		if r.budget -= 1 + len(source.Content); r.budget < 0 {
			return errorf(ReasonTooDeep, "line %s: aliases expand to far more than the file holds; write the values out", at)
		}
		if err := r.members(source, n, seen, true, depth); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows an alias. An anchor is never on an alias, so one step is enough.
func resolve(y *yaml.Node) *yaml.Node {
	if y.Kind == yaml.AliasNode {
		return y.Alias
	}
	return y
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// scalar turns YAML's scalars into JSON's. A timestamp stays the text that was
// written, which is what protobuf reads, and so does !!binary, which is base64.
func (r *yamlReader) scalar(y *yaml.Node, n *node) error {
	n.text = y.Value
	switch y.ShortTag() {
	case "!!null":
		n.kind, n.json = null, []byte("null")
	case "!!bool":
		var value bool
		if y.Decode(&value) != nil {
			return failAt(n, ReasonMalformed, "not a boolean; write true or false")
		}
		n.kind, n.json = boolean, strconv.AppendBool(nil, value)
	case "!!int", "!!float":
		return yamlNumber(y, n)
	case "!!str", "!!timestamp":
		n.kind, n.json = text, quote(y.Value)
	case "!!binary":
		n.text = strings.Join(strings.Fields(y.Value), "")
		n.kind, n.json = text, quote(n.text)
	default:
		return failAt(n, ReasonMalformed, "the value has a tag of its own; remove the tag")
	}
	return nil
}

// yamlNumber keeps a number that JSON can spell as it stands, and otherwise finds
// JSON's spelling: 0x10, 1_000, .5, .inf.
func yamlNumber(y *yaml.Node, n *node) error {
	n.kind = number
	if jsonNumber.MatchString(y.Value) {
		n.json = []byte(y.Value)
		return nil
	}
	var signed int64
	var unsigned uint64
	var float float64
	switch {
	case y.Decode(&signed) == nil:
		n.json = strconv.AppendInt(nil, signed, 10)
	case y.Decode(&unsigned) == nil:
		n.json = strconv.AppendUint(nil, unsigned, 10)
	case y.Decode(&float) != nil:
		return failAt(n, ReasonMalformed, "not a number that fits 64 bits; quote it if it is text")
	case math.IsNaN(float):
		n.json = []byte(`"NaN"`)
	case math.IsInf(float, 1):
		n.json = []byte(`"Infinity"`)
	case math.IsInf(float, -1):
		n.json = []byte(`"-Infinity"`)
	default:
		n.json = strconv.AppendFloat(nil, float, 'g', -1, 64)
	}
	return nil
}
