// Package eventpb holds the messages of xdswal.proto as protoc generates them.
//
// It exists for tests, which hold the hand-written codecs of package event and
// of package compactor/snapshot to it. No production code imports it; a test
// sees to that.
package eventpb

// It takes protoc, and protoc-gen-go of the version of google.golang.org/protobuf
// in go.mod:
//
//go:generate go run ./gen -proto ../xdswal.proto -out .
