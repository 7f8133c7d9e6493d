// Package eventpb holds the messages of xdswal.proto as protoc generates them.
//
// Tests compare the hand-written codecs with it.
package eventpb

// It takes protoc, and protoc-gen-go of the version of google.golang.org/protobuf
// in go.mod:
//
//go:generate go run ./gen -proto ../xdswal.proto -out .
