package main

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
		Long: `Serve restores what the data directory holds, serves it to Envoys and other xDS
clients, and takes updates over the admin interface and from resource files.

Each flag may also be set in a YAML file (--config), by its name, and in the
environment, as XDSWAL_ and its name in capitals with underscores. A flag comes
before the environment, and that before the file.`,
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
	cmd.Flags().String(config.FileFlag, "", "YAML file with settings, by the names of the flags")
	return cmd
}
