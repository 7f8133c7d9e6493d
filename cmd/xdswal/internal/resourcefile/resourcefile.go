// Package resourcefile reads and writes a node's resources as JSON or YAML. A document
// is the whole snapshot of one node; a patch changes some resources of a snapshot:
//
//	version: "42"
//	versions: {type.googleapis.com/envoy.config.listener.v3.Listener: "7"} # optional
//	resources: # in a patch: upsert, and delete: [{type_url: …, name: …}]
//	- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
//	  name: a
//	- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
//	  ttl: 5s
//	  resource: {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b}
//
// Each resource is the JSON form of a protobuf Any, as in Envoy's own files. Its types
// are looked up in protoregistry.GlobalTypes: a program that reads files imports
// cmd/xdswal/internal/envoytypes to link Envoy's messages.
//
// Nothing is dropped or guessed: unknown and duplicate keys, unknown types, resources
// without a name and documents without a version are errors. Each message, those in a
// typed_config too, must pass the validation that Envoy declares for it. A version can
// be a number, which is kept as it is written: 1.10 is "1.10". Another string that
// YAML reads as a number or a boolean must be quoted.
//
// A body can contain private keys. An error contains positions and names of fields,
// types and resources, and no value.
package resourcefile

import (
	"slices"
	"strings"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
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
	// Version is the version of every type that is not in Versions, of types without
	// resources too: a client that waits for such a type receives an empty response.
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

// servedTypes are the type URLs that go-control-plane serves, indexed by
// types.ResponseType: the order in which ADS sends them.
var servedTypes = func() []string {
	urls := make([]string, types.UnknownType)
	for i := range urls {
		// GetResponseTypeURL fails for other numbers only.
		urls[i], _ = cachev3.GetResponseTypeURL(types.ResponseType(i))
	}
	return urls
}()

var servedList = strings.Join(servedTypes, ", ")

func served(typeURL string) bool { return slices.Contains(servedTypes, typeURL) }

func shortType(typeURL string) string { return strings.TrimPrefix(typeURL, resource.APITypePrefix) }

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
// It does not check that references between resources are complete, which some clients
// do not need. Call Consistent on the result for that.
func (d *Document) Snapshot() (*cachev3.Snapshot, error) {
	items := make(map[string][]types.ResourceWithTTL)
	seen := make(map[Name]bool, len(d.Resources))
	for i, r := range d.Resources {
		if err := d.check(r, seen); err != nil {
			return nil, errorf(err.Reason, "resources[%d] (%s %.128q): %s", i, shortType(r.TypeURL), r.Name, err.Message)
		}
		items[r.TypeURL] = append(items[r.TypeURL], types.ResourceWithTTL{Resource: r.Message, TTL: r.TTL})
	}
	snapshot := &cachev3.Snapshot{}
	for i, typeURL := range servedTypes {
		snapshot.Resources[i] = cachev3.NewResourcesWithTTL(d.VersionOf(typeURL), items[typeURL])
	}
	return snapshot, nil
}

// check returns an error if a snapshot would silently lose r. It adds r to seen.
func (d *Document) check(r Resource, seen map[Name]bool) *Error {
	id := Name{r.TypeURL, r.Name}
	switch {
	case !served(r.TypeURL):
		return errorf(ReasonUnservedType, "not a type that xDS serves; use one of %s", servedList)
	case r.Message == nil || cachev3.GetResourceName(r.Message) != r.Name || r.Name == "":
		return errorf(ReasonMissingName, `the resource has no name, or its message has another; set "name", or "cluster_name" of a ClusterLoadAssignment`)
	case seen[id]:
		return errorf(ReasonDuplicateName, "the resource is named twice; keep one of them")
	case d.VersionOf(r.TypeURL) == "":
		return errorf(ReasonMissingVersion, `its type has no version; set "version", or add the type to "versions"`)
	}
	seen[id] = true
	return nil
}
