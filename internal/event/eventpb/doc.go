// Package eventpb is the code that protoc generates for the messages of xdswal.proto.
//
// internal/format/snapshot uses it for the header and the trailer of a snapshot.
// Tests compare the codecs that are written by hand with it.
package eventpb

// This needs protoc, and protoc-gen-go in the version of google.golang.org/protobuf in
// go.mod:
//
//go:generate go run ./gen -proto ../xdswal.proto -out .
