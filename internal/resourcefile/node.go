package resourcefile

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// maxDepth bounds the nesting of objects and lists. Envoy's protobuf library reads
// 100 nested messages, and a message in a list takes two levels here.
const maxDepth = 200

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	list
	object
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// position is a place in the body, counted from 1; columns count characters. The
// zero value is an unknown place.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("%d:%d", p.line, p.column) }

// after is where a text that starts at p ends.
func (p position) after(text []byte) position {
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		return position{p.line + bytes.Count(text, []byte{'\n'}), utf8.RuneCount(text[i+1:]) + 1}
	}
	return position{p.line, p.column + utf8.RuneCount(text)}
}

// node is a value of a body, JSON or YAML, that knows where it stood. Both formats
// are read into it, so that one set of rules, and one set of places in errors, holds
// for both.
type node struct {
	kind kind
	at   position
	// text is the decoded string, or the number or boolean as written.
	text string
	// json is a scalar in JSON's spelling.
	json []byte

	parent   *node
	key      string   // in an object
	keyAt    position // in an object
	index    int      // in a list
	children []*node  // of an object or a list
}

// chain is the way from below the root to n.
func (n *node) chain() []*node {
	var up []*node
	for ; n != nil && n.parent != nil; n = n.parent {
		up = append(up, n)
	}
	slices.Reverse(up)
	return up
}

// member returns the value of a key, or nil.
func (n *node) member(keys ...string) *node {
	if n.kind != object {
		return nil
	}
	for _, child := range n.children {
		if slices.Contains(keys, child.key) {
			return child
		}
	}
	return nil
}

// textOf returns the string under a key, or "" if there is none.
func (n *node) textOf(keys ...string) string {
	if m := n.member(keys...); m != nil && m.kind == text {
		return m.text
	}
	return ""
}

// add makes a child before its value is read, so that an error in the value has a
// place.
func (n *node) add(key string, at position) *node {
	child := &node{parent: n, key: key, keyAt: at, at: at, index: len(n.children)}
	n.children = append(n.children, child)
	return child
}

// tokens is JSON made of a node, one token a line, and the node that each line came
// from: a position in that JSON leads back to a place in the body.
type tokens struct {
	json   bytes.Buffer
	origin []origin
}

type origin struct {
	node *node
	key  bool // the token is the key of node, not its value
}

func (t *tokens) put(n *node, key bool, token ...byte) {
	t.json.Write(token)
	t.json.WriteByte('\n')
	t.origin = append(t.origin, origin{n, key})
}

// value appends n, without its members named skip.
func (t *tokens) value(n *node, skip string) {
	switch n.kind {
	case list:
		t.put(n, false, '[')
		for i, child := range n.children {
			if i > 0 {
				t.put(child, false, ',')
			}
			t.value(child, "")
		}
		t.put(n, false, ']')
	case object:
		t.put(n, false, '{')
		first := true
		for _, child := range n.children {
			if skip != "" && child.key == skip {
				continue
			}
			if !first {
				t.put(child, true, ',')
			}
			first = false
			t.put(child, true, append(quote(child.key), ':')...)
			t.value(child, "")
		}
		t.put(n, false, '}')
	default:
		t.put(n, false, n.json...)
	}
}

// read reads a body in the format that its first character tells.
func read(data []byte) (*node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if i := invalidUTF8(data); i >= 0 {
		return nil, errorf(ReasonMalformed, "line %s: body is not UTF-8; save it as UTF-8", position{1, 1}.after(data[:i]))
	}
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return nil, errEmpty()
	}
	root, err := readFormat(data, trimmed[0] == '{')
	if err != nil {
		return nil, err
	}
	if root.kind == null {
		return nil, errEmpty()
	}
	if root.kind != object {
		return nil, failAt(root, ReasonMalformed, "the body is %s; make it an object with the keys of the form", root.kind)
	}
	return root, nil
}

func readFormat(data []byte, isJSON bool) (*node, error) {
	if isJSON {
		return readJSON(data)
	}
	return readYAML(data)
}

func errEmpty() *Error {
	return errorf(ReasonEmpty, "body is empty; send a JSON or YAML object")
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}
