// Package cli is the command xdswal, for programs that link more drivers of backends.
package cli

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

// Main runs the command with the arguments of the process, and ends the process.
func Main(version string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := rootCommand(version).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xdswal:", err)
		os.Exit(inspect.ExitCode(err))
	}
}

func rootCommand(version string) *cobra.Command {
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
