package resourcefile

import (
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Parse reads a document. A body whose first character is '{' is JSON, any other is
// YAML. The error is an *Error. The caller bounds the size of data: a parse allocates
// some 50 times that.
func Parse(data []byte) (_ *Document, err error) {
	defer catch(&err)
	root := read(data, "version", "versions", "resources")
	d := &Document{Version: root.get("version", str, number).text}
	if versions := root.get("versions", object); versions.kind != "" {
		d.Versions = make(map[string]string)
		for _, c := range versions.children {
			if !served(c.key) {
				c.failAt(c.keyAt, ReasonUnservedType, "the key is not the URL of a type that xDS serves; use one of %s", servedList)
			}
			d.Versions[c.key] = versions.get(c.key, str, number).text
		}
	}
	if d.Version == "" && len(d.Versions) == 0 {
		fail(ReasonMissingVersion, noVersion)
	}
	// An absent list is not read as an empty one, which would delete everything.
	items := root.get("resources", list)
	if items.kind == "" {
		fail(ReasonMissingResources, `document has no resources; add the key "resources", with [] for none`)
	}
	d.Resources = d.readAll(items, make(map[Name]bool))
	return d, nil
}

// ParsePatch reads a patch, in JSON or YAML as Parse does. The error is an *Error.
func ParsePatch(data []byte) (_ *Patch, err error) {
	defer catch(&err)
	root := read(data, "version", "upsert", "delete")
	p := &Patch{Version: root.get("version", str, number).text}
	if p.Version == "" {
		fail(ReasonMissingVersion, noVersion)
	}
	seen := make(map[Name]bool)
	p.Upsert = (&Document{Version: p.Version}).readAll(root.get("upsert", list), seen)
	for _, item := range root.get("delete", list).children {
		item.want(object).checkKeys("type_url", "name")
		name := Name{item.typeURL("type_url"), item.get("name", str).text}
		if name.Name == "" {
			item.fail(ReasonMissingName, `nothing is named; add the key "name"`)
		}
		if seen[name] {
			item.fail(ReasonDuplicateName, "the resource is named twice; keep one of them")
		}
		seen[name] = true
		p.Delete = append(p.Delete, name)
	}
	if len(p.Upsert)+len(p.Delete) == 0 {
		fail(ReasonEmpty, `patch changes nothing; add resources to "upsert" or names to "delete"`)
	}
	return p, nil
}

const noVersion = `document has no version; add the key "version" with a text that changes when the resources do`

// readAll returns the resources in a list and adds their names to seen.
func (d *Document) readAll(items *node, seen map[Name]bool) (resources []Resource) {
	for _, item := range items.children {
		resources = append(resources, d.read(item.want(object), seen))
	}
	return resources
}

// read returns the resource in n, which can be in a wrapper with a TTL.
func (d *Document) read(n *node, seen map[Name]bool) Resource {
	r := Resource{TypeURL: n.typeURL("@type")}
	if r.TypeURL == resourceWrapper {
		return d.readWrapped(n, seen)
	}
	found, err := protoregistry.GlobalTypes.FindMessageByURL(r.TypeURL)
	if err != nil {
		n.member("@type").fail(ReasonUnknownType, "this program does not link the type; use one that links Envoy's messages")
	}
	r.Message = found.New().Interface()
	n.without("@type").decode(r.Message)
	r.Name = cachev3.GetResourceName(r.Message)
	if err := d.check(r, seen); err != nil {
		n.fail(err.Reason, "%s", err.Message)
	}
	n.validate(r.Message)
	return r
}

// typeURL returns the type under a key of n: a served one, or as an @type the wrapper.
func (n *node) typeURL(key string) string {
	value := n.get(key, str)
	if value.text == "" {
		n.fail(ReasonMissingType, "no type is given; add the key %q with the type URL", key)
	}
	if !served(value.text) && (key != "@type" || value.text != resourceWrapper) {
		value.fail(ReasonUnservedType, "not a type that xDS serves; use one of %s", servedList)
	}
	return value.text
}

func (d *Document) readWrapped(n *node, seen map[Name]bool) Resource {
	n.checkKeys("@type", "name", "ttl", "resource")
	inner := n.get("resource", object)
	if inner.kind == "" {
		n.fail(ReasonInvalid, `the wrapper holds no resource; add the key "resource" with an object`)
	}
	if inner.get("@type", str).text == resourceWrapper {
		inner.fail(ReasonUnservedType, "a wrapper is inside a wrapper; keep one")
	}
	r := d.read(inner, seen)
	if name := n.get("name", str); name.text != "" && name.text != r.Name {
		name.fail(ReasonInvalid, "the wrapper has another name than its resource; leave it out, or make them equal")
	}
	if c := n.get("ttl", str); c.kind != "" {
		var duration durationpb.Duration
		c.decode(&duration)
		ttl := duration.AsDuration()
		if ttl <= 0 || !proto.Equal(durationpb.New(ttl), &duration) {
			c.fail(ReasonInvalid, "a TTL is more than zero and less than 292 years; leave it out for none")
		}
		r.TTL = &ttl
	}
	return r
}
