package resourcefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxDepth bounds the nesting of objects and lists. Envoy's protobuf library reads
// 100 nested messages, and a message in a list takes two levels here.
const maxDepth = 200

// tree is the content of a body, of JSON too, as YAML nodes without aliases and merge
// keys. Each node has one of the tags in kinds.
type tree struct {
	data   []byte
	root   *yaml.Node
	copies bool // the nodes are not those of the parser, which aliases need
	budget int  // nodes and bytes that aliases can still add
}

var kinds = map[string]string{
	"!!null": "null", "!!bool": "a boolean", "!!int": "a number", "!!float": "a number",
	"!!str": "a string", "!!seq": "a list", "!!map": "an object",
}

// parseTree reads a body as JSON if its first character is '{', and as YAML otherwise.
func parseTree(data []byte) *tree {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			fail(ReasonMalformed, "line %s: body is not UTF-8; save it as UTF-8", endOf(data[:i]))
		}
		i += size
	}
	t := &tree{data: data, budget: 4*len(data) + 1<<20}
	root := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); bytes.HasPrefix(trimmed, []byte("{")) {
		root = readJSON(data)
	} else if len(trimmed) > 0 {
		root = readYAML(data)
		t.copies = bytes.IndexByte(data, '*') >= 0
	}
	t.root = t.target(root)
	t.expand(t.root, root, 0, false)
	if t.root.Tag == "!!null" {
		fail(ReasonEmpty, "body is empty; send a JSON or YAML object")
	}
	if t.root.Tag != "!!map" {
		t.failAt(t.root, ReasonMalformed, "the body is %s; make it an object with the keys of the form", kinds[t.root.Tag])
	}
	return t
}

// endOf returns the line and column after text.
func endOf(text []byte) string {
	return fmt.Sprintf("%d:%d", bytes.Count(text, []byte("\n"))+1, utf8.RuneCount(text[bytes.LastIndexByte(text, '\n')+1:])+1)
}

// readYAML parses one document. An error contains the line of a syntax error, and not
// the text of the parser, which can repeat the body.
func readYAML(data []byte) *yaml.Node {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	if err == nil {
		err = decoder.Decode(&second)
	}
	var line int
	switch {
	case err == nil:
		fail(ReasonMultipleDocuments, "line %d:%d: a second document starts; keep one document a file", second.Line, second.Column)
	case errors.Is(err, io.EOF):
		return document.Content[0]
	}
	const remedy = "not YAML; check indentation, quotes, tabs and anchors"
	if _, noLine := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); noLine != nil {
		fail(ReasonMalformed, "body is %s", remedy)
	}
	fail(ReasonMalformed, "near line %d: %s there", line, remedy)
	return nil
}

// readJSON parses one value. The YAML parser does not read all JSON: it refuses
// surrogate pairs and long keys, and takes U+2028 in a string for the end of a line.
func readJSON(data []byte) *yaml.Node {
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, new(json.RawMessage)); {
	case err == nil:
	case strings.HasSuffix(err.Error(), "exceeded max depth"):
		failTooDeep()
	case err.Error() == "unexpected end of JSON input":
		fail(ReasonMalformed, "line %s: JSON ends before its last object, list or string is closed; send the whole body", endOf(data))
	case errors.As(err, &syntax): // the wrong byte is before Offset
		fail(ReasonMalformed, "line %s: not JSON; look for a comma, quote or bracket that is missing or too many, or, if it is YAML, do not start it with '{'", endOf(data[:max(syntax.Offset-1, 0)]))
	}
	r := &jsonReader{json.NewDecoder(bytes.NewReader(data)), data}
	r.UseNumber()
	return r.value()
}

// jsonReader makes nodes of valid JSON. Their Line is 0, and their Column an offset.
type jsonReader struct {
	*json.Decoder
	data []byte
}

// loneSurrogate is the tag of a string with half a surrogate pair, which UTF-8 cannot
// represent. A tag in YAML has no space.
const loneSurrogate = "lone surrogate"

// value reads a value or a key.
func (r *jsonReader) value() *yaml.Node {
	before := r.InputOffset()
	token, _ := r.Token() // the syntax is checked
	raw := bytes.TrimLeft(r.data[before:r.InputOffset()], " \t\r\n,:]}")
	n := &yaml.Node{Kind: yaml.ScalarNode, Column: int(r.InputOffset()) - len(raw)}
	switch token := token.(type) {
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(token)
	case json.Number:
		n.Tag, n.Value = "!!float", token.String()
	case string:
		n.Tag, n.Value = "!!str", token
		if strings.ContainsRune(token, utf8.RuneError) && protojson.Unmarshal(raw, new(wrapperspb.StringValue)) != nil {
			n.Tag = loneSurrogate
		}
	case json.Delim:
		n.Kind = yaml.MappingNode
		if token == '[' {
			n.Kind = yaml.SequenceNode
		}
		for r.More() {
			n.Content = append(n.Content, r.value())
		}
		_, _ = r.Token()
	}
	return n
}

func failTooDeep() {
	fail(ReasonTooDeep, "values are nested more than %d deep; flatten them", maxDepth)
}

// spend subtracts n from the budget: a few lines of aliases to aliases would
// otherwise expand without bound.
func (t *tree) spend(n int, at *yaml.Node) {
	if t.budget -= n; t.budget < 0 {
		fail(ReasonTooDeep, "line %s: aliases expand to far more than the file holds; write the values out", t.position(at))
	}
}

// target returns the node that becomes the expanded src.
func (t *tree) target(src *yaml.Node) *yaml.Node {
	if t.copies {
		return new(yaml.Node)
	}
	return src
}

// expand sets dst, which is in the tree already, to src without aliases.
func (t *tree) expand(dst, src *yaml.Node, depth int, aliased bool) {
	content := src.Content
	*dst = yaml.Node{Kind: src.Kind, Tag: src.ShortTag(), Value: src.Value, Line: src.Line, Column: src.Column}
	if depth > maxDepth {
		failTooDeep()
	}
	if aliased {
		t.spend(1+len(src.Value), src)
	}
	switch src.Kind {
	case yaml.AliasNode:
		t.expand(dst, src.Alias, depth+1, true)
	case yaml.MappingNode:
		dst.Tag = "!!map"
		t.expandPairs(dst, content, nil, depth, aliased)
	case yaml.SequenceNode:
		dst.Tag = "!!seq"
		for _, item := range content {
			child := t.target(item)
			dst.Content = append(dst.Content, child)
			t.expand(child, item, depth+1, aliased)
		}
	default:
		t.expandScalar(dst)
	}
}

// expandPairs appends keys and values to dst, and then those of merge keys. If the
// pairs are merged themselves, seen has the keys of dst, which take precedence.
func (t *tree) expandPairs(dst *yaml.Node, content []*yaml.Node, seen map[string]bool, depth int, aliased bool) {
	if depth > maxDepth {
		failTooDeep()
	}
	merged := seen != nil
	if !merged {
		seen = make(map[string]bool)
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(content); i += 2 {
		key, value := resolve(content[i]), content[i+1]
		switch tag := key.ShortTag(); {
		case tag == "!!merge" && resolve(value).Kind == yaml.SequenceNode:
			merges = append(merges, resolve(value).Content...)
			continue
		case tag == "!!merge":
			merges = append(merges, value)
			continue
		case key.Kind != yaml.ScalarNode || tag == "!!null":
			t.failIn(dst, key, ReasonMalformed, "a key is not a name; write it as a string")
		case seen[key.Value] && merged:
			continue
		}
		name := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.Value, Line: content[i].Line, Column: content[i].Column}
		child := t.target(value)
		dst.Content = append(dst.Content, name, child)
		if seen[key.Value] {
			t.failAt(name, ReasonDuplicateKey, "the key occurs twice in its object; keep one")
		}
		seen[key.Value] = true
		t.expand(child, value, depth+1, aliased)
	}
	for _, source := range merges {
		mapping := resolve(source)
		if mapping.Kind != yaml.MappingNode {
			t.failIn(dst, source, ReasonMalformed, "the value of << is not a mapping; merge an alias of a mapping, or a list of them")
		}
		t.spend(1+len(mapping.Content), source)
		t.expandPairs(dst, mapping.Content, seen, depth+1, true)
	}
}

// resolve follows an alias. An anchor is never on an alias, so one step is enough.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// expandScalar replaces the tags that JSON does not have. A timestamp and !!binary are
// the strings that protobuf reads. The Value of a number is kept, for versions.
func (t *tree) expandScalar(n *yaml.Node) {
	switch n.Tag {
	case "!!str":
	case "!!null":
		n.Value = "null"
	case "!!bool":
		if n.Value = jsonScalar(n); n.Value == "" {
			t.failAt(n, ReasonMalformed, "not a boolean; write true or false")
		}
	case "!!int", "!!float":
		if jsonScalar(n) == "" {
			t.failAt(n, ReasonMalformed, "not a number that fits 64 bits; quote it if it is text")
		}
	case "!!timestamp":
		n.Tag = "!!str"
	case "!!binary":
		n.Tag, n.Value = "!!str", strings.Join(strings.Fields(n.Value), "")
	case loneSurrogate:
		t.failAt(n, ReasonInvalid, `a \u escape is half of a surrogate pair; write both halves`)
	default:
		t.failAt(n, ReasonMalformed, "the value has a tag of its own; remove the tag")
	}
}

var literal = regexp.MustCompile(`^(null|true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)$`)

// jsonScalar returns a number, a boolean or null in JSON: as it is written, or such as
// 16 for 0x10. It returns "" if n does not fit its tag.
func jsonScalar(n *yaml.Node) string {
	if literal.MatchString(n.Value) {
		return n.Value
	}
	var v any
	if n.Decode(&v) != nil {
		return ""
	}
	if data, err := json.Marshal(v); err == nil {
		return string(data)
	}
	// JSON has no infinity and no NaN. protojson reads them as strings.
	name := strings.ToLower(strings.TrimPrefix(n.Value, "+"))
	return map[string]string{".inf": `"Infinity"`, "-.inf": `"-Infinity"`, ".nan": `"NaN"`}[name]
}

// writeJSON appends n to b.
func writeJSON(b *bytes.Buffer, n *yaml.Node) {
	switch n.Tag {
	case "!!str":
		quoted, _ := json.Marshal(n.Value) // a string has no error
		b.Write(quoted)
	case "!!seq", "!!map":
		brackets := "[]"
		if n.Tag == "!!map" {
			brackets = "{}"
		}
		b.WriteByte(brackets[0])
		for i, child := range n.Content {
			switch {
			case n.Tag == "!!map" && i%2 == 1:
				b.WriteByte(':')
			case i > 0:
				b.WriteByte(',')
			}
			writeJSON(b, child)
		}
		b.WriteByte(brackets[1])
	default:
		b.WriteString(jsonScalar(n))
	}
}

// pairs returns the keys and values of an object, and nothing of another kind.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// member returns the value under the first of keys in n, or nil.
func member(n *yaml.Node, keys ...string) *yaml.Node {
	for key, value := range pairs(n) {
		if slices.Contains(keys, key.Value) {
			return value
		}
	}
	return nil
}

// without returns a copy of n without some of its members.
func without(n *yaml.Node, keys ...string) *yaml.Node {
	rest := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line, Column: n.Column}
	for key, value := range pairs(n) {
		if !slices.Contains(keys, key.Value) {
			rest.Content = append(rest.Content, key, value)
		}
	}
	return rest
}
