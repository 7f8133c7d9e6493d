// Command gen runs protoc over xdswal.proto.
//
// The file imports Envoy's discovery.proto, whose source is in no Go module.
// Its descriptor is, with those of all that it imports, in the generated Go
// code of go-control-plane, and protoc takes descriptors in place of sources.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	source := flag.String("proto", "xdswal.proto", "`file` to generate from")
	out := flag.String("out", ".", "`directory` to write to")
	flag.Parse()
	if err := run(context.Background(), *source, *out); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, source, out string) (err error) {
	temp, err := os.MkdirTemp("", "eventpb")
	if err != nil {
		return fmt.Errorf("create temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	imports := filepath.Join(temp, "imports.binpb")
	if err := writeImports(imports, discovery.File_envoy_service_discovery_v3_discovery_proto); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "protoc",
		"--descriptor_set_in="+imports,
		"--proto_path="+filepath.Dir(source),
		"--go_out="+out, "--go_opt=paths=source_relative",
		filepath.Base(source))
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("run %q: %w", command.String(), err)
	}
	return nil
}

// writeImports writes file, and what it imports, as a FileDescriptorSet.
func writeImports(path string, file protoreflect.FileDescriptor) error {
	var set descriptorpb.FileDescriptorSet
	collect(file, map[string]bool{}, &set)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&set)
	if err != nil {
		return fmt.Errorf("marshal descriptors: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write descriptors: %w", err)
	}
	return nil
}

// collect adds file to set, behind all that it imports.
func collect(file protoreflect.FileDescriptor, seen map[string]bool, set *descriptorpb.FileDescriptorSet) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		collect(imports.Get(i), seen, set)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}
