package resourcefile

import (
	"slices"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Parse reads a document. A body whose first character is '{' is JSON, any other is
// YAML. The error is an *Error. The caller bounds the size of data: a parse allocates
// some 40 times that.
func Parse(data []byte) (_ *Document, err error) {
	defer catch(&err)
	t := parseTree(data)
	t.checkKeys(t.root, "version", "versions", "resources")
	d := &Document{Version: t.version(t.root, "version"), Versions: t.versions()}
	if d.Version == "" && len(d.Versions) == 0 {
		failNoVersion()
	}
	// An absent list is not read as an empty one, which would delete everything.
	items := t.get(t.root, "resources", "!!seq")
	if items == nil {
		fail(ReasonMissingResources, `document has no resources; add the key "resources", with [] for none`)
	}
	d.Resources = t.resources("resources", make(map[Name]bool))
	for i, r := range d.Resources {
		if d.VersionOf(r.TypeURL) == "" {
			t.failAt(items.Content[i], ReasonMissingVersion, `its type has no version; add the key "version" at the top, or the type to "versions"`)
		}
	}
	return d, nil
}

// ParsePatch reads a patch, in JSON or YAML as Parse does. The error is an *Error.
func ParsePatch(data []byte) (_ *Patch, err error) {
	defer catch(&err)
	t := parseTree(data)
	t.checkKeys(t.root, "version", "upsert", "delete")
	p := &Patch{Version: t.version(t.root, "version")}
	if p.Version == "" {
		failNoVersion()
	}
	seen := make(map[Name]bool)
	p.Upsert = t.resources("upsert", seen)
	for _, item := range t.items("delete") {
		t.checkKeys(item, "type_url", "name")
		name := Name{t.typeURL(item, "type_url"), t.text(item, "name")}
		if name.Name == "" {
			t.failAt(item, ReasonMissingName, `nothing is named; add the key "name"`)
		}
		t.once(item, name, seen)
		p.Delete = append(p.Delete, name)
	}
	if len(p.Upsert)+len(p.Delete) == 0 {
		fail(ReasonEmpty, `patch changes nothing; add resources to "upsert" or names to "delete"`)
	}
	return p, nil
}

func failNoVersion() {
	fail(ReasonMissingVersion, `document has no version; add the key "version" with a text that changes when the resources do`)
}

// checkKeys fails if n has another key than names.
func (t *tree) checkKeys(n *yaml.Node, names ...string) {
	for key := range pairs(n) {
		if !slices.Contains(names, key.Value) {
			t.failAt(key, ReasonUnknownField, "not a key of this object; use only %s", strings.Join(names, ", "))
		}
	}
}

// get returns the value of a key, which must have the tag, or nil if it is absent or
// null.
func (t *tree) get(n *yaml.Node, key, tag string) *yaml.Node {
	v := member(n, key)
	if v == nil || v.Tag == "!!null" {
		return nil
	}
	if v.Tag != tag {
		t.misfit(v, kinds[tag])
	}
	return v
}

func (t *tree) text(n *yaml.Node, key string) string {
	if v := t.get(n, key, "!!str"); v != nil {
		return v.Value
	}
	return ""
}

// version returns a string, or a number as it is written.
func (t *tree) version(n *yaml.Node, key string) string {
	if v := member(n, key); v != nil && kinds[v.Tag] == "a number" {
		return v.Value
	}
	return t.text(n, key)
}

func (t *tree) versions() map[string]string {
	n := t.get(t.root, "versions", "!!map")
	if n == nil {
		return nil
	}
	versions := make(map[string]string)
	for key := range pairs(n) {
		if !served(key.Value) {
			t.failAt(key, ReasonUnservedType, "the key is not the URL of a type that xDS serves; use one of %s", servedList)
		}
		versions[key.Value] = t.version(n, key.Value)
	}
	return versions
}

// items returns the objects in a list.
func (t *tree) items(key string) []*yaml.Node {
	n := t.get(t.root, key, "!!seq")
	if n == nil {
		return nil
	}
	for _, item := range n.Content {
		if item.Tag != "!!map" {
			t.misfit(item, "an object")
		}
	}
	return n.Content
}

// resources returns a list of resources and adds their names to seen.
func (t *tree) resources(key string, seen map[Name]bool) (resources []Resource) {
	for _, item := range t.items(key) {
		r := t.resource(item)
		t.once(item, Name{r.TypeURL, r.Name}, seen)
		resources = append(resources, r)
	}
	return resources
}

func (t *tree) once(n *yaml.Node, name Name, seen map[Name]bool) {
	if seen[name] {
		t.failAt(n, ReasonDuplicateName, "the resource is named twice; keep one of them")
	}
	seen[name] = true
}

// typeURL returns the type under a key of a resource or of a name.
func (t *tree) typeURL(n *yaml.Node, key string) string {
	typeURL := t.text(n, key)
	switch {
	case typeURL == "":
		t.failAt(n, ReasonMissingType, "no type is given; add the key %q with the type URL", key)
	case !served(typeURL) && (key != "@type" || typeURL != resourceWrapper):
		t.failAt(member(n, key), ReasonUnservedType, "not a type that xDS serves; use one of %s", servedList)
	}
	return typeURL
}

// resource reads a resource, which can be in a wrapper with a TTL.
func (t *tree) resource(n *yaml.Node) Resource {
	typeURL := t.typeURL(n, "@type")
	if typeURL == resourceWrapper {
		return t.wrapped(n)
	}
	message := t.decode(n, typeURL, "@type")
	name := cachev3.GetResourceName(message)
	if name == "" {
		t.failAt(n, ReasonMissingName, "the resource has no name; add the key %q", nameKeys(typeURL)[0])
	}
	t.validate(n, message)
	return Resource{TypeURL: typeURL, Name: name, Message: message}
}

func (t *tree) wrapped(n *yaml.Node) Resource {
	t.checkKeys(n, "@type", "name", "ttl", "resource")
	inner := member(n, "resource")
	if inner == nil || inner.Tag != "!!map" {
		t.failAt(n, ReasonInvalid, `the wrapper holds no resource; add the key "resource" with an object`)
	}
	if textOf(inner, "@type") == resourceWrapper {
		t.failAt(inner, ReasonUnservedType, "a wrapper is inside a wrapper; keep one")
	}
	r := t.resource(inner)
	wrapper := t.decode(n, resourceWrapper, "@type", "resource").(*discovery.Resource)
	if wrapper.GetName() != "" && wrapper.GetName() != r.Name {
		t.failAt(member(n, "name"), ReasonInvalid, "the wrapper has another name than its resource; leave it out, or make them equal")
	}
	if wrapper.GetTtl() != nil {
		ttl := wrapper.GetTtl().AsDuration()
		if ttl <= 0 || !proto.Equal(durationpb.New(ttl), wrapper.GetTtl()) {
			t.failAt(member(n, "ttl"), ReasonInvalid, "a TTL is more than zero and less than 292 years; leave it out for none")
		}
		r.TTL = &ttl
	}
	return r
}
