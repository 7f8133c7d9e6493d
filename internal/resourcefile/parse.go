package resourcefile

import (
	"slices"
	"strings"
)

// Parse reads a document. A body whose first character is '{' is JSON, any other is
// YAML. The error is an *Error. The caller bounds the size of data: a parse allocates
// some 25 times that for JSON, and 50 times for YAML.
func Parse(data []byte) (*Document, error) {
	root, err := read(data)
	if err != nil {
		return nil, err
	}
	if err := checkKeys(root, "version", "versions", "resources"); err != nil {
		return nil, err
	}
	d := &Document{}
	if d.Version, err = readVersion(root.member("version")); err != nil {
		return nil, err
	}
	if d.Versions, err = readVersions(root.member("versions")); err != nil {
		return nil, err
	}
	if d.Version == "" && len(d.Versions) == 0 {
		return nil, errNoVersion()
	}
	// An absent list is not taken for an empty one, which would delete everything.
	items := root.member("resources")
	if items == nil || items.kind == null {
		return nil, errorf(ReasonMissingResources, `document has no resources; add the key "resources", with [] for none`)
	}
	if d.Resources, err = readResources(items, make(map[Name]bool)); err != nil {
		return nil, err
	}
	if err := checkVersions(d, items); err != nil {
		return nil, err
	}
	return d, nil
}

// checkVersions sees that each resource has a version. It is after the resources, so
// that the error can name the first that has none.
func checkVersions(d *Document, items *node) error {
	for i, r := range d.Resources {
		if d.VersionOf(r.TypeURL) == "" {
			return failAt(items.children[i], ReasonMissingVersion, `its type has no version; add the key "version" at the top, or the type to "versions"`)
		}
	}
	return nil
}

// ParsePatch reads a patch, in JSON or YAML as Parse does. The error is an *Error.
func ParsePatch(data []byte) (*Patch, error) {
	root, err := read(data)
	if err != nil {
		return nil, err
	}
	if err := checkKeys(root, "version", "upsert", "delete"); err != nil {
		return nil, err
	}
	p := &Patch{}
	if p.Version, err = readVersion(root.member("version")); err != nil {
		return nil, err
	}
	if p.Version == "" {
		return nil, errNoVersion()
	}
	seen := make(map[Name]bool)
	if p.Upsert, err = readResources(root.member("upsert"), seen); err != nil {
		return nil, err
	}
	if p.Delete, err = readNames(root.member("delete"), seen); err != nil {
		return nil, err
	}
	if len(p.Upsert)+len(p.Delete) == 0 {
		return nil, errorf(ReasonEmpty, `patch changes nothing; add resources to "upsert" or names to "delete"`)
	}
	return p, nil
}

func errNoVersion() *Error {
	return errorf(ReasonMissingVersion, `document has no version; add the key "version" with a text that changes when the resources do`)
}

// checkKeys refuses the members of n that are not named.
func checkKeys(n *node, names ...string) error {
	for _, child := range n.children {
		if !slices.Contains(names, child.key) {
			return failAtKey(child, ReasonUnknownField, "not a key of this object; use only %s", strings.Join(names, ", "))
		}
	}
	return nil
}

// readVersion takes a string, or a number as it is written; an absent one is "".
func readVersion(n *node) (string, error) {
	switch {
	case n == nil || n.kind == null:
		return "", nil
	case n.kind == text || n.kind == number:
		return n.text, nil
	}
	return "", failAt(n, ReasonInvalid, "a version is a string, and this is %s; quote it", n.kind)
}

func readVersions(n *node) (map[string]string, error) {
	if n == nil || n.kind == null {
		return nil, nil
	}
	if n.kind != object {
		return nil, failAt(n, ReasonInvalid, "expects an object of versions by type URL, found %s", n.kind)
	}
	versions := make(map[string]string, len(n.children))
	for _, child := range n.children {
		if !served(child.key) {
			return nil, failAtKey(child, ReasonUnservedType, "the key is not the URL of a type that xDS serves; use one of %s", servedList)
		}
		version, err := readVersion(child)
		if err != nil {
			return nil, err
		}
		versions[child.key] = version
	}
	return versions, nil
}

// readList returns the items of a list; an absent list has none.
func readList(n *node) ([]*node, error) {
	switch {
	case n == nil || n.kind == null:
		return nil, nil
	case n.kind != list:
		return nil, failAt(n, ReasonInvalid, "expects a list, found %s; put the items in [ ]", n.kind)
	}
	for _, item := range n.children {
		if item.kind != object {
			return nil, failAt(item, ReasonInvalid, "expects an object, found %s", item.kind)
		}
	}
	return n.children, nil
}

// readResources reads a list of resources and adds their names to seen.
func readResources(n *node, seen map[Name]bool) ([]Resource, error) {
	items, err := readList(n)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	resources := make([]Resource, 0, len(items))
	for _, item := range items {
		r, err := readResource(item)
		if err != nil {
			return nil, err
		}
		if err := once(item, Name{r.TypeURL, r.Name}, seen); err != nil {
			return nil, err
		}
		resources = append(resources, r)
	}
	return resources, nil
}

// readNames reads a list of names and adds them to seen.
func readNames(n *node, seen map[Name]bool) ([]Name, error) {
	items, err := readList(n)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	names := make([]Name, 0, len(items))
	for _, item := range items {
		if err := checkKeys(item, "type_url", "name"); err != nil {
			return nil, err
		}
		typeURL, err := readTypeURL(item, "type_url")
		if err != nil {
			return nil, err
		}
		name, err := readString(item.member("name"))
		if err != nil {
			return nil, err
		}
		if name == "" {
			return nil, failAt(item, ReasonMissingName, `nothing is named; add the key "name"`)
		}
		if err := once(item, Name{typeURL, name}, seen); err != nil {
			return nil, err
		}
		names = append(names, Name{typeURL, name})
	}
	return names, nil
}

func once(n *node, name Name, seen map[Name]bool) error {
	if seen[name] {
		return failAt(n, ReasonDuplicateName, "the resource is named twice; keep one of them")
	}
	seen[name] = true
	return nil
}

func readString(n *node) (string, error) {
	switch {
	case n == nil || n.kind == null:
		return "", nil
	case n.kind == text:
		return n.text, nil
	}
	return "", failAt(n, ReasonInvalid, "expects a string, found %s%s", n.kind, quoteHint(n))
}

// quoteHint is for YAML such as "name: 42".
func quoteHint(n *node) string {
	if n.kind == number || n.kind == boolean {
		return "; quote it"
	}
	return "; write a string"
}

// readTypeURL returns the type under a key of a resource or of a name.
func readTypeURL(n *node, key string) (string, error) {
	typeURL, err := readString(n.member(key))
	switch {
	case err != nil:
		return "", err
	case typeURL == "":
		return "", failAt(n, ReasonMissingType, "no type is given; add the key %q with the type URL", key)
	case served(typeURL) || key == "@type" && typeURL == resourceWrapper:
		return typeURL, nil
	}
	return "", failAt(n.member(key), ReasonUnservedType, "not a type that xDS serves; use one of %s", servedList)
}
