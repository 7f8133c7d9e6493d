package resourcefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// readJSON reads one JSON value.
func readJSON(data []byte) (*node, error) {
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	r := &jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), at: position{1, 1}}
	r.decoder.UseNumber()
	root := &node{}
	if err := r.value(root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

// checkJSON checks the syntax of the whole, for which encoding/json knows the exact
// offset. Its messages are not passed on, as they repeat a character of the body.
func checkJSON(data []byte) error {
	err := json.Unmarshal(data, new(json.RawMessage))
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return errorf(ReasonMalformed, "body is not JSON; correct its syntax")
	}
	switch said := err.Error(); {
	case said == "unexpected end of JSON input":
		return errorf(ReasonMalformed, "line %s: JSON ends before its last object, list or string is closed; send the whole body", position{1, 1}.after(data))
	case strings.HasSuffix(said, "exceeded max depth"):
		return errTooDeep()
	}
	// Offset counts the bytes up to and with the one that is wrong.
	at := position{1, 1}.after(data[:min(max(syntax.Offset-1, 0), int64(len(data)))])
	return errorf(ReasonMalformed, "line %s: not JSON; look for a comma, quote or bracket that is missing or too many, or, if it is YAML, do not start it with '{'", at)
}

func errTooDeep() *Error {
	return errorf(ReasonTooDeep, "values are nested more than %d deep; flatten them", maxDepth)
}

// jsonReader makes nodes of the tokens of a body whose syntax has been checked.
type jsonReader struct {
	data    []byte
	decoder *json.Decoder
	end     int      // offset where the last token ended
	at      position // position of end
}

// next returns a token, its bytes and its position.
func (r *jsonReader) next() (json.Token, []byte, position, error) {
	token, err := r.decoder.Token()
	if err != nil {
		return nil, nil, position{}, errorf(ReasonMalformed, "line %s: not JSON; correct its syntax", r.at)
	}
	end := int(r.decoder.InputOffset())
	rest := r.data[r.end:end]
	raw := bytes.TrimLeft(rest, " \t\r\n,:")
	start := r.at.after(rest[:len(rest)-len(raw)])
	r.end, r.at = end, start.after(raw)
	return token, raw, start, nil
}

func (r *jsonReader) value(n *node, depth int) error {
	token, raw, at, err := r.next()
	if err != nil {
		return err
	}
	n.at, n.json = at, raw
	switch token := token.(type) {
	case nil:
		n.kind = null
	case bool:
		n.kind, n.text = boolean, string(raw)
	case json.Number:
		n.kind, n.text = number, string(raw)
	case string:
		n.kind, n.text = text, token
	case json.Delim:
		if depth >= maxDepth {
			return errTooDeep()
		}
		if token == '[' {
			return r.list(n, depth+1)
		}
		return r.object(n, depth+1)
	}
	return nil
}

func (r *jsonReader) list(n *node, depth int) error {
	n.kind = list
	for r.decoder.More() {
		if err := r.value(n.add("", position{}), depth); err != nil {
			return err
		}
	}
	_, _, _, err := r.next()
	return err
}

func (r *jsonReader) object(n *node, depth int) error {
	n.kind = object
	seen := make(map[string]bool)
	for r.decoder.More() {
		token, _, at, err := r.next()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		child := n.add(key, at)
		if seen[key] {
			return errDuplicateKey(child)
		}
		seen[key] = true
		if err := r.value(child, depth); err != nil {
			return err
		}
	}
	_, _, _, err := r.next()
	return err
}

func errDuplicateKey(n *node) *Error {
	return failAtKey(n, ReasonDuplicateKey, "the key occurs twice in its object; keep one")
}

// quote is a string in JSON's spelling. Unlike json.Marshal it leaves <, > and & as
// they are, which files for people use.
func quote(s string) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	// A string encodes whatever it holds.
	_ = encoder.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
