// Command xdswal is the command of the main module with the drivers for Google Cloud
// Storage and Azure Blob Storage.
package main

import (
	_ "github.com/xdswal/xdswal/backends/cloud/cloudurl" // gs:// and azblob://
	"github.com/xdswal/xdswal/cmd/xdswal/cli"
)

// version is set by the linker.
var version = "dev"

func main() { cli.Main(version) }
