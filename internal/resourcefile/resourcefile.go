// Package resourcefile reads and writes a node's resources as JSON or YAML.
//
// A document is the whole snapshot of one node:
//
//	version: "42"
//	versions:                       # optional: a version of its own for a type
//	  type.googleapis.com/envoy.config.listener.v3.Listener: "7"
//	resources:
//	- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
//	  name: a
//	- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
//	  ttl: 5s                       # optional: the resource expires after 5 s
//	  resource:
//	    "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
//	    name: b
//
// Each resource is the JSON form of a protobuf Any, as in Envoy's own files. A patch
// changes some resources of a snapshot and leaves the rest:
//
//	version: "43"
//	upsert: [{"@type": …}]
//	delete: [{type_url: …, name: a}]
//
// # Strictness
//
// What would be dropped or guessed is refused: unknown and duplicate keys, unknown
// types, resources without a name, a document without a version. Each message, those
// in a typed_config too, must pass the validation that Envoy declares for it. A
// version may be a number, and then is the text as written: 1.10 is "1.10". Any other
// string must be a string: YAML that means text but reads as a number or a boolean
// has to be quoted.
//
// # Types
//
// An @type is looked up among the messages linked into the program
// (protoregistry.GlobalTypes). This package links none for the purpose; a program
// that reads files imports internal/envoytypes.
//
// # Secrets
//
// A body holds private keys. No error says more of it than places, field names, type
// names and resource names; no value does appear.
package resourcefile

import (
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/proto"
)

// Resource is one xDS resource.
type Resource struct {
	TypeURL string         // one of the types that go-control-plane serves
	Name    string         // as cachev3.GetResourceName gives it; never empty
	TTL     *time.Duration // nil: the resource does not expire
	Message proto.Message
}

// Document is the whole snapshot of a node.
type Document struct {
	// Version is the version of every type that Versions does not name, of types
	// without resources too: a document says that they are empty, and a client that
	// waits for them is told so.
	Version string
	// Versions holds the versions that differ, by type URL. The empty string is for a
	// type that has no resources and was never published.
	Versions map[string]string
	// Resources are in the order of the file.
	Resources []Resource
}

// Name identifies a resource within a node.
type Name struct{ TypeURL, Name string }

// Patch changes some resources of a node. No resource is in both lists.
type Patch struct {
	Version string // the version of every type that the patch touches
	Upsert  []Resource
	Delete  []Name
}

// Format is an encoding of a document.
type Format string

// The formats that Marshal writes and Parse reads.
const (
	JSON Format = "json"
	YAML Format = "yaml"
)

// resourceWrapper is the type that gives a resource a TTL, as on the wire.
const resourceWrapper = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// VersionOf returns the version of a type: that in Versions, or else Version.
func (d *Document) VersionOf(typeURL string) string {
	if version, ok := d.Versions[typeURL]; ok {
		return version
	}
	return d.Version
}

// Snapshot returns the document as go-control-plane's snapshot, with the version of
// each type and the TTLs. Messages are shared with the document, not copied.
//
// It does not check that references between resources are complete: some clients
// need no such thing. Call Consistent on the result for that.
func (d *Document) Snapshot() (*cachev3.Snapshot, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	items := make(map[string][]types.ResourceWithTTL)
	for _, r := range d.Resources {
		items[r.TypeURL] = append(items[r.TypeURL], types.ResourceWithTTL{Resource: r.Message, TTL: r.TTL})
	}
	snapshot := &cachev3.Snapshot{}
	for i, typeURL := range servedTypes {
		snapshot.Resources[i] = cachev3.NewResourcesWithTTL(d.VersionOf(typeURL), items[typeURL])
	}
	return snapshot, nil
}

// check holds a document made by hand to the rules that Parse enforces and on which
// a snapshot depends; without it a resource would be lost silently.
func (d *Document) check() error {
	seen := make(map[Name]bool, len(d.Resources))
	for i, r := range d.Resources {
		id := Name{r.TypeURL, r.Name}
		switch {
		case !served(r.TypeURL):
			return errorf(ReasonUnservedType, "resources[%d] is not of a type that xDS serves; use one of %s", i, servedList)
		case r.Message == nil || cachev3.GetResourceName(r.Message) != r.Name || r.Name == "":
			return errorf(ReasonMissingName, "resources[%d] (%s) has no message of the name it claims; set Name to the name in Message", i, shortType(r.TypeURL))
		case seen[id]:
			return errorf(ReasonDuplicateName, "resources[%d] (%s %q) occurs twice; keep one", i, shortType(r.TypeURL), clip(r.Name))
		case d.VersionOf(r.TypeURL) == "":
			return errorf(ReasonMissingVersion, "resources[%d] (%s %q) has no version; set the version of the document or of the type", i, shortType(r.TypeURL), clip(r.Name))
		}
		seen[id] = true
	}
	return nil
}
