package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/config"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/daemon"
)

func serveCommand() *cobra.Command {
	var c daemon.Config
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Serve xDS from a cache that survives crashes",
		Long: `Serve restores the state in the data directory, serves it to Envoy and other xDS
clients, and accepts updates over the admin interface and from resource files.

Each flag can also be set by its name in a YAML file (--config), and as the
environment variable XDSWAL_ followed by its name in capitals with underscores. A
flag on the command line overrides the environment, which overrides the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			origins, err := config.Apply(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return err
			}
			c.Name = origins.Name
			return daemon.Run(cmd.Context(), c, cmd.ErrOrStderr())
		},
	}
	c.Flags(cmd.Flags())
	cmd.Flags().String(config.FileFlag, "", "YAML file with settings; its keys are the names of the flags")
	return cmd
}
