package resourcefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// maxDepth bounds the nesting of objects and lists. Envoy's protobuf library reads
	// 100 nested messages, and a message in a list takes two levels here.
	maxDepth = 200
	tooDeep  = "values are nested more than 200 deep; flatten them"
	halfPair = `a \u escape is half of a surrogate pair; write both halves`

	// loneSurrogate is the tag of a string with half a surrogate pair, which UTF-8
	// cannot represent. A tag in YAML has no space.
	loneSurrogate = "lone surrogate"
)

// node is a value of a body, without aliases and merge keys.
type node struct {
	parent    *node
	key       string // in an object
	index     int    // in a list
	keyAt, at position
	kind      string
	text      string  // of a scalar, as it is written
	json      []byte  // of a scalar
	children  []*node // of an object or a list
}

// The kinds of a node, as errors call them.
const (
	null, boolean, number, str = "null", "a boolean", "a number", "a string"
	list, object               = "a list", "an object"
)

// kinds are the kinds of YAML's tags. protobuf reads a timestamp and !!binary as strings.
var kinds = map[string]string{
	"!!null": null, "!!bool": boolean, "!!int": number, "!!float": number,
	"!!str": str, "!!timestamp": str, "!!binary": str,
}

// position is a line and a column, each from 1.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("line %d:%d", p.line, p.column) }

// after returns the position after a text that starts at p.
func (p position) after(text []byte) position {
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		p = position{p.line + bytes.Count(text, []byte("\n")), 1}
		text = text[i+1:]
	}
	p.column += utf8.RuneCount(text)
	return p
}

// origin is the position of the first character.
var origin = position{1, 1}

// read returns the content of a body: an object that has only these keys. A body is JSON if
// its first character is '{', and YAML otherwise.
func read(data []byte, keys ...string) *node {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for i, r := range string(data) {
		if r == utf8.RuneError && !bytes.HasPrefix(data[i:], []byte("\ufffd")) {
			fail(ReasonMalformed, "%s: body is not UTF-8; save it as UTF-8", origin.after(data[:i]))
		}
	}
	var src *yaml.Node
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); bytes.HasPrefix(trimmed, []byte("{")) {
		src = readJSON(data)
	} else if len(trimmed) > 0 {
		src = readYAML(data)
	}
	if src == nil || src.ShortTag() == "!!null" {
		fail(ReasonEmpty, "body is empty; send a JSON or YAML object")
	}
	root := new(node)
	// Without aliases, a body uses at most 3 per byte.
	(&expander{budget: 7*len(data) + 1<<20}).fill(root, src, 0)
	if root.kind != object {
		root.fail(ReasonMalformed, "the body is %s; make it an object with the keys of the form", root.kind)
	}
	root.checkKeys(keys...)
	return root
}

// readYAML parses one document, and returns nil if there is none. An error contains the
// line of a syntax error, and not the text of the parser, which can repeat the body.
func readYAML(data []byte) *yaml.Node {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	switch {
	case err == nil:
		fail(ReasonMultipleDocuments, "%s: a second document starts; keep one document a file", position{second.Line, second.Column})
	case errors.Is(err, io.EOF):
		return document.Content[0]
	}
	where, line := "body", 0
	if _, err := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); err == nil {
		where = fmt.Sprintf("near line %d: body", line)
	}
	fail(ReasonMalformed, "%s is not YAML; check indentation, quotes, tabs and anchors", where)
	return nil
}

// readJSON parses one value. The YAML parser does not read all JSON: it refuses
// surrogate pairs and long keys, and takes U+2028 in a string for the end of a line.
func readJSON(data []byte) *yaml.Node {
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, new(json.RawMessage)); {
	case err == nil:
	case strings.HasSuffix(err.Error(), "exceeded max depth"):
		fail(ReasonTooDeep, tooDeep)
	case err.Error() == "unexpected end of JSON input":
		fail(ReasonMalformed, "%s: JSON ends before its last object, list or string is closed; send the whole body", origin.after(data))
	case errors.As(err, &syntax): // the wrong byte is before Offset
		fail(ReasonMalformed, "%s: not JSON; look for a comma, quote or bracket that is missing or too many, or, if it is YAML, do not start it with '{'", origin.after(data[:max(syntax.Offset-1, 0)]))
	}
	r := &jsonReader{Decoder: json.NewDecoder(bytes.NewReader(data)), data: data, at: origin}
	r.UseNumber()
	return r.value()
}

// jsonReader makes nodes of valid JSON.
type jsonReader struct {
	*json.Decoder
	data   []byte
	offset int // of the last value
	at     position
}

// value reads a value or a key.
func (r *jsonReader) value() *yaml.Node {
	before := r.InputOffset()
	token, _ := r.Token() // the syntax is checked
	raw := bytes.TrimLeft(r.data[before:r.InputOffset()], " \t\r\n,:")
	offset := int(r.InputOffset()) - len(raw)
	r.at, r.offset = r.at.after(r.data[r.offset:offset]), offset
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: string(raw), Line: r.at.line, Column: r.at.column}
	switch token := token.(type) {
	case json.Number:
		n.Tag = "!!float"
	case string:
		n.Tag, n.Value = "!!str", token
		if strings.ContainsRune(token, utf8.RuneError) && protojson.Unmarshal(raw, new(wrapperspb.StringValue)) != nil {
			n.Tag = loneSurrogate
		}
	case json.Delim:
		n.Kind = map[json.Delim]yaml.Kind{'{': yaml.MappingNode, '[': yaml.SequenceNode}[token]
		for r.More() {
			n.Content = append(n.Content, r.value())
		}
		_, _ = r.Token()
	}
	return n
}

// expander makes nodes of those of the YAML parser.
type expander struct {
	budget int // of nodes and bytes: a few lines of aliases to aliases expand to billions
}

// fill sets n, which has its place in the tree, to the value src.
func (e *expander) fill(n *node, src *yaml.Node, depth int) {
	n.at = position{src.Line, src.Column}
	if depth > maxDepth {
		fail(ReasonTooDeep, tooDeep)
	}
	if e.budget -= 1 + len(n.key) + len(src.Value); e.budget < 0 {
		fail(ReasonTooDeep, "%s: aliases expand to far more than the file holds; write the values out", n.at)
	}
	switch src.Kind {
	case yaml.AliasNode:
		e.fill(n, src.Alias, depth+1)
	case yaml.MappingNode:
		n.kind = object
		e.fillObject(n, src.Content, depth)
	case yaml.SequenceNode:
		n.kind = list
		for i, item := range src.Content {
			c := &node{parent: n, index: i}
			n.children = append(n.children, c)
			e.fill(c, item, depth+1)
		}
	default:
		n.fillScalar(src)
	}
}

// fillObject appends the keys and values of n, and then those of its merge keys that n
// does not have.
func (e *expander) fillObject(n *node, content []*yaml.Node, depth int) {
	seen := make(map[string]bool)
	var merged []*node
	for i := 0; i+1 < len(content); i += 2 {
		key, value := content[i], content[i+1]
		c := &node{parent: n, keyAt: position{key.Line, key.Column}}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		c.key = key.Value
		switch tag := key.ShortTag(); {
		case tag == "!!merge":
			m := &node{parent: n.parent, key: n.key, index: n.index}
			e.fill(m, value, depth+1)
			if merged = append(merged, m); m.kind == list {
				merged = append(merged[:len(merged)-1], m.children...)
			}
			continue
		case key.Kind != yaml.ScalarNode || tag == "!!null":
			n.failAt(c.keyAt, ReasonMalformed, "a key is not a name; write it as a string")
		case tag == loneSurrogate:
			c.failAt(c.keyAt, ReasonInvalid, halfPair)
		case seen[c.key]:
			c.failAt(c.keyAt, ReasonDuplicateKey, "the key occurs twice in its object; keep one")
		}
		seen[c.key] = true
		n.children = append(n.children, c)
		e.fill(c, value, depth+1)
	}
	for _, m := range merged {
		if m.kind != object {
			n.failAt(m.at, ReasonMalformed, "the value of << is not a mapping; merge an alias of a mapping, or a list of them")
		}
		for _, c := range m.children {
			if !seen[c.key] {
				seen[c.key], c.parent = true, n
				n.children = append(n.children, c)
			}
		}
	}
}

var literal = regexp.MustCompile(`^(null|true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)$`)

// fillScalar sets n to a scalar, in JSON as it is written, or such as 16 for 0x10.
func (n *node) fillScalar(src *yaml.Node) {
	tag := src.ShortTag()
	n.kind, n.text, n.json = kinds[tag], src.Value, []byte(src.Value)
	switch {
	case tag == loneSurrogate:
		n.fail(ReasonInvalid, halfPair)
	case n.kind == "":
		n.fail(ReasonMalformed, "the value has a tag of its own; remove the tag")
	case tag == "!!binary":
		n.text = strings.Join(strings.Fields(src.Value), "")
		n.json = quote(n.text)
	case n.kind == str:
		n.json = quote(n.text)
	case !literal.Match(n.json):
		var v any
		if src.Decode(&v) != nil {
			n.fail(ReasonMalformed, "not %s that fits 64 bits; quote it if it is text", n.kind)
		}
		if f, ok := v.(float64); ok { // protojson has an infinity and NaN
			n.json, _ = protojson.Marshal(wrapperspb.Double(f))
		} else {
			n.json, _ = json.Marshal(v)
		}
	}
}

func quote(s string) []byte {
	quoted, _ := json.Marshal(s) // a string has no error
	return quoted
}

// appendJSON appends n to b.
func (n *node) appendJSON(b []byte) []byte {
	brackets := map[string]string{list: "[]", object: "{}"}[n.kind]
	if brackets == "" {
		return append(b, n.json...)
	}
	b = append(b, brackets[0])
	for i, c := range n.children {
		if i > 0 {
			b = append(b, ',')
		}
		if n.kind == object {
			b = append(append(b, quote(c.key)...), ':')
		}
		b = c.appendJSON(b)
	}
	return append(b, brackets[1])
}

// member returns the value under a key of an object, or nil.
func (n *node) member(key string) *node {
	for _, c := range n.children {
		if n.kind == object && c.key == key {
			return c
		}
	}
	return nil
}

// without returns n without one of its members.
func (n *node) without(key string) *node {
	rest := *n
	rest.children = slices.DeleteFunc(slices.Clone(n.children), func(c *node) bool { return c.key == key })
	return &rest
}

// checkKeys fails if n has another key than keys.
func (n *node) checkKeys(keys ...string) {
	for _, c := range n.children {
		if !slices.Contains(keys, c.key) {
			c.failAt(c.keyAt, ReasonUnknownField, "not a key of this object; use only %s", strings.Join(keys, ", "))
		}
	}
}

// want fails if n is of none of the kinds.
func (n *node) want(kinds ...string) *node {
	if !slices.Contains(kinds, n.kind) {
		n.misfit(kinds[0])
	}
	return n
}

// get returns the value under a key, which must be of one of the kinds. It returns an
// empty node if there is none, or null.
func (n *node) get(key string, kinds ...string) *node {
	if c := n.member(key); c != nil && c.kind != null {
		return c.want(kinds...)
	}
	return new(node)
}
