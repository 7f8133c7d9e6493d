// Package envoytypes links every Envoy v3 message into the program that imports it.
//
// The JSON form of an Any names its message by @type, and protobuf can only resolve
// the types whose Go packages are linked. A control plane may send any of Envoy's
// extensions, so a program that reads resources as JSON or YAML imports this package
// for its side effect:
//
//	import _ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
//
// It adds some 13 MB to a stripped binary, so that only commands import it, never a
// library package.
package envoytypes

//go:generate go run ./gen -out types.go
