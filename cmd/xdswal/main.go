// Command xdswal is an xDS control plane whose configuration survives crashes. It
// also has commands that read the data of such a control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	// Links the messages that an @type in a resource file may name.
	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/inspect"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xdswal:", err)
		os.Exit(inspect.ExitCode(err))
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "xdswal",
		Short:         "An xDS control plane whose configuration survives crashes",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand())
	root.AddCommand(inspect.Commands()...)
	return root
}
