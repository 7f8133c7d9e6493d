// Package envoytypes links every Envoy v3 message into the program that imports it.
//
// The JSON form of an Any names its message by @type, and protobuf resolves only the
// types whose Go packages are linked. A resource may contain any of Envoy's
// extensions, so the command, which reads resources as JSON and YAML, imports this
// package for its side effect. It adds about 13 MB to a stripped binary; no library
// package imports it.
package envoytypes

//go:generate go run ./gen -out types.go
