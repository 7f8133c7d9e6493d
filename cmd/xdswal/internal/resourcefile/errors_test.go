package resourcefile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
)

// jsonCluster is a document of one cluster with more members.
func jsonCluster(members string) string {
	return `{"version":"1","resources":[` + "\n" + `{"@type":"` + resource.ClusterType + `","name":"a",` + members + "}]}"
}

func jsonListener(typedConfig string) string {
	return `{"version":"1","resources":[{"@type":"` + resource.ListenerType + `","name":"l","filter_chains":[{"filters":[{"name":"f",` + "\n" + `"typed_config":` + typedConfig + `}]}]}]}`
}

const (
	inCluster  = `resources[0] (envoy.config.cluster.v3.Cluster "a")`
	inListener = `resources[0] (envoy.config.listener.v3.Listener "l")`
)

func TestParseErrors(t *testing.T) {
	for name, test := range map[string]struct {
		body   string
		reason resourcefile.Reason
		says   string // the start of the message
	}{
		"empty":                  {"", resourcefile.ReasonEmpty, "body is empty; send"},
		"spaces":                 {" \n\t", resourcefile.ReasonEmpty, "body is empty"},
		"yaml comment":           {"# nothing\n", resourcefile.ReasonEmpty, "body is empty"},
		"yaml null":              {"---\n", resourcefile.ReasonEmpty, "body is empty"},
		"not UTF-8":              {"version: 1\nx: \xff", resourcefile.ReasonMalformed, "line 2:4: body is not UTF-8"},
		"json cut":               {`{"version":"1",` + "\n" + `"resources":[`, resourcefile.ReasonMalformed, "line 2:14: JSON ends before"},
		"json syntax":            {`{"version":"1",` + "\n" + `"resources":x}`, resourcefile.ReasonMalformed, "line 2:13: not JSON"},
		"json trailing":          {`{"version":"1","resources":[]}` + "\n{}", resourcefile.ReasonMalformed, "line 2:1: not JSON"},
		"yaml syntax":            {"version: 1\nresources: [", resourcefile.ReasonMalformed, "near line "},
		"yaml tab":               {"version: 1\nresources:\n\t- a", resourcefile.ReasonMalformed, "near line "},
		"yaml unknown anchor":    {"version: *v\nresources: []", resourcefile.ReasonMalformed, "body is not YAML"},
		"yaml own tag":           {"version: !mine 1\nresources: []", resourcefile.ReasonMalformed, "field version, line 1:10: the value has a tag"},
		"yaml list as key":       {"version: 1\n? [a]\n: b\n", resourcefile.ReasonMalformed, "line 2:3: a key is not a name"},
		"yaml merge of scalar":   {"version: 1\n<<: b\n", resourcefile.ReasonMalformed, "line 2:5: the value of << is not a mapping"},
		"yaml cycle":             {"version: &a [*a]\nresources: []", resourcefile.ReasonTooDeep, "values are nested more than 200 deep"},
		"yaml merge cycle":       {"version: &a {<<: *a}\nresources: []", resourcefile.ReasonTooDeep, "values are nested more than 200 deep"},
		"yaml two documents":     {"version: 1\nresources: []\n---\nversion: 2\n", resourcefile.ReasonMultipleDocuments, "line "},
		"top level list":         {"- a\n", resourcefile.ReasonMalformed, "line 1:1: the body is a list; make it an object"},
		"top level string":       {"hunter2", resourcefile.ReasonMalformed, "line 1:1: the body is a string"},
		"json deep":              {`{"resources":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, resourcefile.ReasonTooDeep, "values are nested more than 200"},
		"json very deep":         {`{"resources":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, resourcefile.ReasonTooDeep, "values are nested more than 200"},
		"yaml deep":              {"resources: " + strings.Repeat("[", 300) + strings.Repeat("]", 300), resourcefile.ReasonTooDeep, "values are nested more than 200"},
		"unknown top-level key":  {`{"version":"1","resource":[]}`, resourcefile.ReasonUnknownField, "field resource, line 1:16: not a key of this object; use only version, versions, resources"},
		"duplicate key json":     {`{"version":"1",` + "\n" + `"version":"2","resources":[]}`, resourcefile.ReasonDuplicateKey, "field version, line 2:1: the key occurs twice"},
		"duplicate key yaml":     {yamlCluster("  name: b"), resourcefile.ReasonDuplicateKey, inCluster + ", field name, line 5:3: the key occurs twice"},
		"duplicate deep key":     {jsonCluster(`"circuit_breakers":{"thresholds":[{"max_requests":1,"max_requests":1}]}`), resourcefile.ReasonDuplicateKey, inCluster + ", field circuit_breakers.thresholds[0].max_requests, line 2:127: the key"},
		"missing version":        {`{"resources":[]}`, resourcefile.ReasonMissingVersion, `document has no version; add the key "version"`},
		"empty version":          {`{"version":"","resources":[]}`, resourcefile.ReasonMissingVersion, "document has no version"},
		"null version":           {"version:\nresources: []", resourcefile.ReasonMissingVersion, "document has no version"},
		"boolean of a type":      {"version: 1\nversions: {" + resource.ClusterType + ": true}\nresources: []", resourcefile.ReasonInvalid, "field versions." + resource.ClusterType + ", line 2:65: expects a string, found a boolean; quote it"},
		"boolean version":        {"version: true\nresources: []", resourcefile.ReasonInvalid, "field version, line 1:10: expects a string, found a boolean; quote it"},
		"type without version":   {`{"versions":{"` + resource.ListenerType + `":"1"},"resources":[` + clusterA + `]}`, resourcefile.ReasonMissingVersion, inCluster + ", line 1:"},
		"versions not an object": {`{"version":"1","versions":[],"resources":[]}`, resourcefile.ReasonInvalid, "field versions, line 1:27: expects an object, found a list"},
		"versions of no type":    {`{"version":"1","versions":{"Cluster":"2"},"resources":[]}`, resourcefile.ReasonUnservedType, "field versions.Cluster, line 1:28: the key is not the URL of a type that xDS serves; use one of type.googleapis.com/envoy.config.cluster.v3.Cluster, "},
		"no resources":           {`{"version":"1"}`, resourcefile.ReasonMissingResources, `document has no resources; add the key "resources"`},
		"null resources":         {"version: 1\nresources:\n", resourcefile.ReasonMissingResources, "document has no resources"},
		"resources not a list":   {`{"version":"1","resources":{}}`, resourcefile.ReasonInvalid, "field resources, line 1:28: expects a list, found an object"},
		"resource not an object": {"version: 1\nresources: [hunter2]", resourcefile.ReasonInvalid, "resources[0], line 2:13: expects an object, found a string"},
		"missing type":           {`{"version":"1","resources":[{"name":"a"}]}`, resourcefile.ReasonMissingType, `resources[0] ("a"), line 1:29: no type is given; add the key "@type"`},
		"type not a string":      {`{"version":"1","resources":[{"@type":1}]}`, resourcefile.ReasonInvalid, `resources[0], field @type, line 1:38: expects a string, found a number`},
		"unserved type":          {`{"version":"1","resources":[{"@type":"type.googleapis.com/envoy.config.core.v3.Node","id":"a"}]}`, resourcefile.ReasonUnservedType, `resources[0] (envoy.config.core.v3.Node), field @type, line 1:38: not a type that xDS serves; use one of type.googleapis.com/envoy.config.cluster.v3.Cluster, `},
		"type without a prefix":  {`{"version":"1","resources":[{"@type":"envoy.config.cluster.v3.Cluster","name":"a"}]}`, resourcefile.ReasonUnservedType, `resources[0] ("a"), field @type, line 1:38: not a type`},
		"missing name":           {`{"version":"1","resources":[{"@type":"` + resource.ClusterType + `"}]}`, resourcefile.ReasonMissingName, `resources[0] (envoy.config.cluster.v3.Cluster), line 1:29: the resource has no name, or`},
		"missing cluster_name":   {`{"version":"1","resources":[{"@type":"` + resource.EndpointType + `"}]}`, resourcefile.ReasonMissingName, `resources[0] (envoy.config.endpoint.v3.ClusterLoadAssignment), line 1:29: the resource has no name, or`},
		"duplicate name":         {`{"version":"1","resources":[` + clusterA + ",\n" + clusterA + `]}`, resourcefile.ReasonDuplicateName, `resources[1] (envoy.config.cluster.v3.Cluster "a"), line 2:1: the resource is named twice`},
		"unknown field":          {jsonCluster("\n" + `"conect_timeout":"1s"`), resourcefile.ReasonUnknownField, inCluster + ", field conect_timeout, line 3:1: not a field of envoy.config.cluster.v3.Cluster; remove it or correct its name"},
		"unknown deep field":     {yamlCluster("  circuit_breakers:", "    thresholds:", "    - max: 1"), resourcefile.ReasonUnknownField, inCluster + ", field circuit_breakers.thresholds[0].max, line 7:7: not a field of envoy.config.cluster.v3.CircuitBreakers.Thresholds"},
		"two spellings":          {jsonCluster(`"connect_timeout":"1s","connectTimeout":"1s"`), resourcefile.ReasonDuplicateKey, inCluster + ", field connectTimeout, line 2:"},
		"oneof":                  {jsonCluster(`"type":"EDS","cluster_type":{"name":"x"}`), resourcefile.ReasonInvalid, inCluster + ", field cluster_type, line 2:88: type and cluster_type exclude each other; keep one"},
		"wrong kind":             {yamlCluster("  alt_stat_name: 1"), resourcefile.ReasonInvalid, inCluster + ", field alt_stat_name, line 5:18: expects a valid string, found a number; quote it"},
		"yaml boolean as string": {yamlCluster("  alt_stat_name: true"), resourcefile.ReasonInvalid, inCluster + ", field alt_stat_name, line 5:18: expects a valid string, found a boolean; quote it"},
		"wrong enum":             {jsonCluster(`"lb_policy":"BEST"`), resourcefile.ReasonInvalid, inCluster + ", field lb_policy, line 2:87: expects a valid envoy.config.cluster.v3.Cluster.LbPolicy, found a string"},
		"wrong duration":         {jsonCluster(`"connect_timeout":"1m"`), resourcefile.ReasonInvalid, inCluster + `, field connect_timeout, line 2:93: expects a valid duration in seconds such as "1.5s", found a string`},
		"wrong wrapper":          {jsonCluster(`"per_connection_buffer_limit_bytes":-1`), resourcefile.ReasonInvalid, inCluster + `, field per_connection_buffer_limit_bytes, line 2:111: expects a valid google.protobuf.UInt32Value, found a number`},
		"scalar for list":        {jsonCluster(`"health_checks":{}`), resourcefile.ReasonInvalid, inCluster + ", field health_checks, line 2:91: expects a list, found an object"},
		"scalar for message":     {jsonCluster(`"circuit_breakers":[]`), resourcefile.ReasonInvalid, inCluster + ", field circuit_breakers, line 2:94: expects a valid envoy.config.cluster.v3.CircuitBreakers, found a list"},
		"list for map":           {jsonCluster(`"typed_extension_protocol_options":[]`), resourcefile.ReasonInvalid, inCluster + ", field typed_extension_protocol_options, line 2:110: expects an object"},
		"null in a list":         {jsonCluster(`"health_checks":[null]`), resourcefile.ReasonInvalid, inCluster + ", field health_checks[0], line 2:92: expects a valid envoy.config.core.v3.HealthCheck, found null"},
		"lone surrogate":         {jsonCluster(`"alt_stat_name":"\ud800 and more"`), resourcefile.ReasonInvalid, inCluster + ", field alt_stat_name, line 2:91: a \\u escape is half of a surrogate pair; write both halves"},
		"lone surrogate version": {`{"version":"\udc00","resources":[]}`, resourcefile.ReasonInvalid, "field version, line 1:12: a \\u escape is half of a surrogate pair"},
		"lone surrogate key":     {jsonCluster(`"metadata":{"filter_metadata":{"\ud800":{}}}`), resourcefile.ReasonInvalid, inCluster + ", field metadata.filter_metadata.(key not shown), line 2:106: a \\u escape is half of a surrogate pair"},
		"number out of range":    {jsonCluster(`"metadata":{"filter_metadata":{"x":{"a":[1,{"b":1e999}]}}}`), resourcefile.ReasonInvalid, inCluster + ", field metadata.filter_metadata.x.a[1].b, line 2:123: expects a valid number of 64 bits, found a number"},
		"list for a struct":      {jsonCluster(`"metadata":{"filter_metadata":{"x":[]}}`), resourcefile.ReasonInvalid, inCluster + ", field metadata.filter_metadata.x, line 2:110: expects a valid google.protobuf.Struct, found a list"},
		"null in a map":          {jsonCluster(`"metadata":{"filter_metadata":{"x":null}}`), resourcefile.ReasonInvalid, inCluster + ", field metadata.filter_metadata.x, line 2:110: expects a valid google.protobuf.Struct, found null"},
		"wrong bytes":            {jsonListener(`{"@type":"type.googleapis.com/google.protobuf.BytesValue","value":"?"}`), resourcefile.ReasonInvalid, inListener + `, field filter_chains[0].filters[0].typed_config.value, line 2:82: expects a valid google.protobuf.BytesValue, found a string`},
		"item of a scalar list":  {wrapped(`"resource":{"@type":"` + resource.VirtualHostType + `","name":"v","domains":["a",1]}`), resourcefile.ReasonInvalid, `resources[0] (envoy.config.route.v3.VirtualHost "v"), field resource.domains[1], line 2:170: expects a valid string, found a number; quote it`},
		"packed without value":   {jsonListener(`{"@type":"type.googleapis.com/google.protobuf.StringValue"}`), resourcefile.ReasonInvalid, inListener + `, field filter_chains[0].filters[0].typed_config, line 2:16: the message has no value; add the key "value"`},
		"packed type null":       {jsonListener(`{"@type":null,"x":1}`), resourcefile.ReasonInvalid, inListener + `, field filter_chains[0].filters[0].typed_config.@type, line 2:25: expects a string, found null`},
		"packed without type":    {jsonListener(`{"stat_prefix":"x"}`), resourcefile.ReasonMissingType, inListener + `, field filter_chains[0].filters[0].typed_config, line 2:16: no type is given; add the key "@type"`},
		"packed unknown type":    {jsonListener(`{"@type":"type.googleapis.com/envoy.Nope"}`), resourcefile.ReasonUnknownType, inListener + `, field filter_chains[0].filters[0].typed_config.@type, line 2:25: type.googleapis.com/envoy.Nope is not a message that this program links`},
		"packed odd type":        {jsonListener(`{"@type":"hunter2"}`), resourcefile.ReasonUnknownType, inListener + `, field filter_chains[0].filters[0].typed_config.@type, line 2:25: the value is not a message that this program links`},
		"packed type a number":   {jsonListener(`{"@type":7}`), resourcefile.ReasonInvalid, inListener + `, field filter_chains[0].filters[0].typed_config.@type, line 2:25: expects a string, found a number; quote it`},
		"packed unknown field":   {jsonListener(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router","dynamic_stat":true}`), resourcefile.ReasonUnknownField, inListener + `, field filter_chains[0].filters[0].typed_config.dynamic_stat, line 2:94: not a field of envoy.extensions.filters.http.router.v3.Router`},
		"packed wrapper":         {jsonListener(`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":1}`), resourcefile.ReasonInvalid, inListener + `, field filter_chains[0].filters[0].typed_config.value, line 2:83: expects a valid google.protobuf.StringValue, found a number; quote it`},
		"packed wrapper field":   {jsonListener(`{"@type":"type.googleapis.com/google.protobuf.StringValue","text":"x"}`), resourcefile.ReasonUnknownField, inListener + `, field filter_chains[0].filters[0].typed_config.text, line 2:75: not a key of this object; use only @type, value`},
		"rule":                   {yamlCluster("  connect_timeout: -1s"), resourcefile.ReasonInvalid, inCluster + ", field connect_timeout, line 5:20: value must be greater than 0s"},
		"rule on absent field":   {yamlCluster("  health_checks:", "  - timeout: 1s"), resourcefile.ReasonInvalid, inCluster + ", field health_checks[0], line 6:5: interval: value is required"},
		"rule on oneof":          {yamlCluster("  health_checks:", "  - {timeout: 1s, interval: 1s, healthy_threshold: 1, unhealthy_threshold: 1}"), resourcefile.ReasonInvalid, inCluster + ", field health_checks[0], line 6:5: health_checker: value is required"},
		"rule in a packed message": {
			jsonListener(`{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","rds":{"route_config_name":"r"}}`),
			resourcefile.ReasonInvalid, inListener + ", field filter_chains[0].filters[0].typed_config, line 2:16: stat_prefix: value length must be at least 1 runes",
		},
		"rule in a map": {
			yamlCluster("  typed_extension_protocol_options:", "    envoy.x:", "      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
			resourcefile.ReasonInvalid, inCluster + ", field typed_extension_protocol_options.envoy.x, line 7:7: upstream_protocol_options: value is required",
		},
		"wrapper field":     {wrapped(`"version":"1","resource":` + clusterA), resourcefile.ReasonUnknownField, inCluster + ", field version, line 2:68: not a key of this object; use only @type, name, ttl, resource"},
		"wrapper empty":     {wrapped(`"ttl":"5s"`), resourcefile.ReasonInvalid, "resources[0] (envoy.service.discovery.v3.Resource), line 2:1: the wrapper holds no resource"},
		"wrapper in itself": {wrapped(`"resource":{"@type":"type.googleapis.com/envoy.service.discovery.v3.Resource"}`), resourcefile.ReasonUnservedType, "resources[0] (envoy.service.discovery.v3.Resource), field resource, line 2:79: a wrapper is inside a wrapper"},
		"wrapper misnamed":  {wrapped(`"name":"b","resource":` + clusterA), resourcefile.ReasonInvalid, inCluster + ", field name, line 2:75: the wrapper has another name than its resource"},
		"wrapper unknown":   {wrapped(`"resource":{"@type":"` + resource.ClusterType + `","name":"a","x":1}`), resourcefile.ReasonUnknownField, inCluster + ", field resource.x, line 2:"},
		"ttl zero":          {wrapped(`"ttl":"0s","resource":` + clusterA), resourcefile.ReasonInvalid, inCluster + ", field ttl, line 2:74: a TTL is more than zero"},
		"ttl too long":      {wrapped(`"ttl":"300000000000s","resource":` + clusterA), resourcefile.ReasonInvalid, inCluster + ", field ttl, line 2:74: a TTL is more than zero and less than 292 years"},
		"ttl not seconds":   {wrapped(`"ttl":"5m","resource":` + clusterA), resourcefile.ReasonInvalid, inCluster + `, field ttl, line 2:74: expects a valid duration in seconds such as "1.5s"`},
		"ttl an object":     {wrapped(`"ttl":{},"resource":` + clusterA), resourcefile.ReasonInvalid, inCluster + `, field ttl, line 2:74: expects a string, found an object`},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := resourcefile.Parse([]byte(test.body))
			require.Nil(t, d)
			requireReason(t, err, test.reason)
			require.True(t, strings.HasPrefix(err.Error(), test.says), "%s\n%s", err, test.says)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func wrapped(members string) string {
	return `{"version":"1","resources":[` + "\n" + `{"@type":"type.googleapis.com/envoy.service.discovery.v3.Resource",` + members + "}]}"
}

func TestParsePatchErrors(t *testing.T) {
	remove := `{"type_url":"` + resource.ClusterType + `","name":"a"}`
	for name, test := range map[string]struct {
		body   string
		reason resourcefile.Reason
		says   string
	}{
		"empty":               {"", resourcefile.ReasonEmpty, "body is empty"},
		"changes nothing":     {`{"version":"1","upsert":[]}`, resourcefile.ReasonEmpty, "patch changes nothing"},
		"unknown key":         {`{"version":"1","resources":[]}`, resourcefile.ReasonUnknownField, "field resources, line 1:16: not a key of this object; use only version, upsert, delete"},
		"missing version":     {`{"delete":[` + remove + `]}`, resourcefile.ReasonMissingVersion, "document has no version"},
		"upsert broken":       {`{"version":"1","upsert":[{"@type":"` + resource.ClusterType + `","name":"a","x":1}]}`, resourcefile.ReasonUnknownField, `upsert[0] (envoy.config.cluster.v3.Cluster "a"), field x, line 1:`},
		"delete unknown key":  {`{"version":"1","delete":[{"@type":"x","name":"a"}]}`, resourcefile.ReasonUnknownField, `delete[0] ("a"), field @type, line 1:27: not a key of this object; use only type_url, name`},
		"delete without type": {`{"version":"1","delete":[{"name":"a"}]}`, resourcefile.ReasonMissingType, `delete[0] ("a"), line 1:26: no type is given; add the key "type_url"`},
		"delete of no type":   {`{"version":"1","delete":[{"type_url":"x","name":"a"}]}`, resourcefile.ReasonUnservedType, `delete[0] ("a"), field type_url, line 1:38: not a type that xDS serves`},
		"delete wrapper":      {`{"version":"1","delete":[{"type_url":"type.googleapis.com/envoy.service.discovery.v3.Resource","name":"a"}]}`, resourcefile.ReasonUnservedType, "delete[0] "},
		"delete without name": {`{"version":"1","delete":[{"type_url":"` + resource.ClusterType + `"}]}`, resourcefile.ReasonMissingName, "delete[0] (envoy.config.cluster.v3.Cluster), line 1:26: nothing is named"},
		"delete number":       {"version: 1\ndelete:\n- type_url: " + resource.ClusterType + "\n  name: 7", resourcefile.ReasonInvalid, "delete[0] (envoy.config.cluster.v3.Cluster), field name, line 4:9: expects a string, found a number; quote it"},
		"delete twice":        {`{"version":"1","delete":[` + remove + `,` + remove + `]}`, resourcefile.ReasonDuplicateName, `delete[1] (envoy.config.cluster.v3.Cluster "a"), line 1:`},
		"upsert and delete":   {`{"version":"1","upsert":[` + clusterA + `],"delete":[` + remove + `]}`, resourcefile.ReasonDuplicateName, `delete[0] (envoy.config.cluster.v3.Cluster "a"), line 1:`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := resourcefile.ParsePatch([]byte(test.body))
			require.Nil(t, p)
			requireReason(t, err, test.reason)
			require.True(t, strings.HasPrefix(err.Error(), test.says), "%s\n%s", err, test.says)
		})
	}
}

// An alias bomb of a few lines must be refused before it takes memory.
func TestParseAliasBomb(t *testing.T) {
	var s strings.Builder
	s.WriteString("version: 1\nresources:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&s, "- &a%d [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, err := resourcefile.Parse([]byte(s.String()))
	requireReason(t, err, resourcefile.ReasonTooDeep)
	require.ErrorContains(t, err, "aliases expand to far more than the file holds")

	// Long keys in aliases expand as well.
	long := "[&a {" + strings.Repeat("k", 1000) + ": 1}" + strings.Repeat(", *a", 2000) + "]"
	_, err = resourcefile.Parse([]byte(yamlCluster("  metadata: {filter_metadata: {x: {y: " + long + "}}}")))
	requireReason(t, err, resourcefile.ReasonTooDeep)

	// Merges of merges add no key, and must be counted all the same.
	s.Reset()
	s.WriteString("version: 1\nresources:\n- &a0 {x: 1}\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&s, "- &a%d {<<: [%s]}\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, err = resourcefile.Parse([]byte(s.String()))
	requireReason(t, err, resourcefile.ReasonTooDeep)
}

// A private key must not get into an error, wherever in a body it was put by mistake.
func TestErrorsHoldNoSecret(t *testing.T) {
	const secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
	const pem = `-----BEGIN PRIVATE KEY-----\n` + secret + `\n-----END PRIVATE KEY-----\n`
	tlsSecret := func(members string) string {
		return `{"version":"1","resources":[{"@type":"` + resource.SecretType + `","name":"s",` + members + `}]}`
	}
	for name, body := range map[string]string{
		"string for a message":     tlsSecret(`"tls_certificate":"` + pem + `"`),
		"string for a data source": tlsSecret(`"tls_certificate":{"private_key":"` + pem + `"}`),
		"unknown field":            tlsSecret(`"tls_certificate":{"private_key":{"inline":"` + pem + `"}}`),
		"as an unknown key":        tlsSecret(`"tls_certificate":{"private_key":{"` + pem + `":1}}`),
		"as a base64 key":          tlsSecret(`"tls_certificate":{"private_key":{"` + secret + `+/":1}}`),
		"bad bytes":                tlsSecret(`"tls_certificate":{"private_key":{"inline_bytes":"` + pem + `"}}`),
		"number as string":         tlsSecret(`"tls_certificate":{"private_key":{"inline_string":["` + pem + `"]}}`),
		"as a type":                tlsSecret(`"tls_certificate":{"private_key_provider":{"provider_name":"p","typed_config":{"@type":"` + secret + `"}}}`),
		"as a type URL":            tlsSecret(`"tls_certificate":{"private_key_provider":{"provider_name":"p","typed_config":{"@type":"type.googleapis.com/` + pem + `"}}}`),
		"beside a missing type":    tlsSecret(`"tls_certificate":{"private_key_provider":{"provider_name":"p","typed_config":{"private_key":"` + pem + `"}}}`),
		"as an enum":               tlsSecret(`"validation_context":{"trust_chain_verification":"` + pem + `"}`),
		"as a duration":            tlsSecret(`"validation_context":{"trusted_ca":{"watched_directory":{"path":1}},"x":"` + pem + `"}`),
		"twice":                    tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + pem + `","inline_string":"` + pem + `"}}`),
		"two spellings":            tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + pem + `","inlineString":"` + pem + `"}}`),
		"two of a oneof":           tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + pem + `","filename":"` + pem + `"}}`),
		"against a rule":           tlsSecret(`"validation_context":{"verify_certificate_hash":["` + pem + `"]}`),
		"as a map key":             jsonCluster(`"typed_extension_protocol_options":{"` + pem + `":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}}`),
		"as the version":           `{"version":["` + pem + `"],"resources":[]}`,
		"as the resource type":     `{"version":"1","resources":[{"@type":"` + pem + `"}]}`,
		"as a version's type":      `{"version":"1","versions":{"` + pem + `":"1"},"resources":[]}`,
		"as a resource":            `{"version":"1","resources":["` + pem + `"]}`,
		"as a top-level key":       `{"` + pem + `":1}`,
		"as the body":              secret,
		"as a body with colon":     secret + ": 1",
		"wrapper ttl":              wrapped(`"ttl":"` + pem + `","resource":` + clusterA),
		"wrapper name":             wrapped(`"name":"` + pem + `","resource":` + clusterA),
		"malformed after":          tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + pem + `"}`),
		"malformed inside":         tlsSecret(`"tls_certificate":{"private_key":{"inline_string":` + secret + `}}`),
		"real line breaks":         tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + strings.ReplaceAll(pem, `\n`, "\n") + `"}}`),
		"cut":                      tlsSecret(`"tls_certificate":{"private_key":{"inline_string":"` + pem)[:180],
		"yaml bad indentation":     "version: 1\nresources:\n- name: s\n  inline_string: |\n" + strings.ReplaceAll(pem, `\n`, "\n"),
		"yaml unquoted":            "version: 1\nresources:\n- inline_string: -----BEGIN: " + secret + ": x\n",
		"yaml anchor":              "version: *" + secret + "\n",
		"yaml tag":                 "version: !" + secret + " 1\n",
		"yaml number":              "version: 1\nresources: [{\"@type\": " + resource.SecretType + ", name: s, tls_certificate: !!int " + secret + "}]\n",
		"yaml boolean":             "version: !!bool " + secret + "\n",
		"yaml float":               "version: !!float " + secret + "\n",
		"yaml merge":               "<<: " + secret + "\n",
		"yaml second document":     "version: 1\nresources: []\n---\n" + secret + "\n",
		"yaml directive":           "%" + secret + "\n---\nversion: 1\n",
		"yaml control character":   "version: \"" + secret + "\x01\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := resourcefile.Parse([]byte(body))
			requireNoSecret(t, err, secret)
			body = strings.Replace(body, `"resources":`, `"upsert":`, 1)
			_, err = resourcefile.ParsePatch([]byte(body))
			requireNoSecret(t, err, secret)
		})
	}
}

func requireNoSecret(t *testing.T, err error, secret string) {
	t.Helper()
	var e *resourcefile.Error
	require.ErrorAs(t, err, &e)
	for _, said := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		require.NotContains(t, said, secret[:12])
		require.NotContains(t, said, "PRIVATE KEY")
	}
}
