package resourcefile

import (
	"bytes"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// jsonToYAML writes JSON as YAML, with keys in the same order.
func jsonToYAML(data []byte) ([]byte, error) {
	root, err := readJSON(data)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(toYAML(root)); err != nil {
		return nil, errorf(ReasonInvalid, "document does not make YAML; export it as JSON")
	}
	if err := encoder.Close(); err != nil {
		return nil, errorf(ReasonInvalid, "document does not make YAML; export it as JSON")
	}
	return b.Bytes(), nil
}

func toYAML(n *node) *yaml.Node {
	switch n.kind {
	case list:
		y := &yaml.Node{Kind: yaml.SequenceNode, Style: flowIfEmpty(n)}
		for _, child := range n.children {
			y.Content = append(y.Content, toYAML(child))
		}
		return y
	case object:
		y := &yaml.Node{Kind: yaml.MappingNode, Style: flowIfEmpty(n)}
		for _, child := range n.children {
			y.Content = append(y.Content, stringToYAML(child.key), toYAML(child))
		}
		return y
	case text:
		return stringToYAML(n.text)
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: string(n.json)}
	}
}

func flowIfEmpty(n *node) yaml.Style {
	if len(n.children) == 0 {
		return yaml.FlowStyle
	}
	return 0
}

var (
	// plainString is what every YAML reader, of version 1.1 too, takes for a string.
	plainString = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./-]*$`)
	// plainWord is what some take for a boolean or null.
	plainWord = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
	// block is text of several lines, such as a certificate.
	block = regexp.MustCompile(`^([!-~][ -~]*\n+)+[!-~][ -~]*\n?$`)
)

func stringToYAML(s string) *yaml.Node {
	style := yaml.DoubleQuotedStyle
	switch {
	case plainString.MatchString(s) && !plainWord.MatchString(s):
		style = 0
	case block.MatchString(s) && !strings.Contains(s, " \n"):
		style = yaml.LiteralStyle
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: style}
}
