// Command xdswal is an xDS control plane whose configuration survives crashes. It
// also has commands that read the data of such a control plane.
package main

import "github.com/xdswal/xdswal/cmd/xdswal/cli"

// version is set by the linker.
var version = "dev"

func main() { cli.Main(version) }
