package file_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xdswal/xdswal/backends/file"
)

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	ctx := context.Background()
	b, err := file.New(file.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	if err := b.Put(ctx, "snapshots/1", strings.NewReader("hello, world")); err != nil {
		panic(err)
	}
	objects, err := b.List(ctx, "snapshots/")
	if err != nil {
		panic(err)
	}
	r, err := b.Get(ctx, objects[0].Key, 7, -1)
	if err != nil {
		panic(err)
	}
	defer func() { _ = r.Close() }()
	tail, err := io.ReadAll(r)
	fmt.Println(objects[0].Key, objects[0].Size, string(tail), err)
	// Output: snapshots/1 12 world <nil>
}
