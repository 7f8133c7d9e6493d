// Package inspect is the commands that look at what a control plane has kept,
// in a data directory or in a backend, and change nothing there.
//
// They take no lock that a daemon waits for, and so may be used beside one. The
// newest segment of its journal a daemon keeps to itself; what a command cannot
// read for that, or for damage, it says, and never leaves out silently.
package inspect

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// ExitIncomplete is the exit code of a command that needed all events and could
// not read the newest ones.
const ExitIncomplete = 3

// Commands returns the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		statusCommand(), snapshotsCommand(), eventsCommand(), verifyCommand(), restoreCommand(), exportCommand(),
	}
}

// ExitCode returns the exit code of a program that ends with err.
func ExitCode(err error) int {
	var incomplete *incompleteError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &incomplete):
		return ExitIncomplete
	default:
		return 1
	}
}

// incompleteError is the end of a command that would have shown less than there
// is.
type incompleteError struct{ err error }

func (e *incompleteError) Error() string { return e.err.Error() }
func (e *incompleteError) Unwrap() error { return e.err }

// common are the flags of every command.
type common struct {
	dir     string
	backend string
	json    bool
}

func (c *common) dirFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.dir, "dir", "", "data directory; it may be that of a running daemon")
	_ = cmd.MarkFlagDirname("dir")
}

func (c *common) backendFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.backend, "backend", "", "URL of a backend, for example s3://bucket/prefix?region=eu-west-1 or file:///mnt/backup/xdswal; with --dir or without")
}

func (c *common) jsonFlag(cmd *cobra.Command, usage string) {
	cmd.Flags().BoolVar(&c.json, "json", false, usage)
}

const partialHelp = `
Beside a running daemon the newest events cannot be read, and the command ends
with exit code 3 and has written nothing. --allow-partial goes on with what can
be read, which it tells; --at SEQ needs no such flag if that event can be read.
POST /v1/compact of the daemon writes a snapshot, which can be.`

func run(fn func(ctx context.Context, p *printer) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		p := newPrinter(cmd.OutOrStdout(), cmd.ErrOrStderr())
		err := fn(cmd.Context(), p)
		// What could be shown is shown, and a full disk is no success.
		return errors.Join(err, p.flush())
	}
}
