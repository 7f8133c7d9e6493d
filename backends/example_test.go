package backends_test

import (
	"fmt"

	"github.com/xdswal/xdswal/backends"
)

func ExampleValidKey() {
	fmt.Println(backends.ValidKey("epochs/3/snap-0017.zst"))
	fmt.Println(backends.ValidKey("epochs/../secret"))
	// Output:
	// <nil>
	// invalid key: segment ".."
}
