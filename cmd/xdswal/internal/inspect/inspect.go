// Package inspect implements the commands that read a data directory or a
// backend: status, snapshots, events, verify, restore and export. They change
// nothing in what they read.
//
// They take no lock that a daemon waits for, and are safe beside a running one.
// A daemon keeps the newest segment of its journal locked. Each command reports
// the events that it could not read because of that lock or of damage.
package inspect

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// ExitIncomplete is the exit code of a command that needs all events and could
// not read the newest ones.
const ExitIncomplete = 3

// Commands returns the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		statusCommand(), snapshotsCommand(), eventsCommand(), verifyCommand(), restoreCommand(), exportCommand(),
	}
}

// ExitCode returns the exit code for the error of a command.
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

// incompleteError is the error of a command that could not read all events.
type incompleteError struct{ error }

func (e *incompleteError) Unwrap() error { return e.error }

// flags are the flags that several commands have.
type flags struct {
	dir     string
	backend string
	json    bool
	at      string
	partial bool
}

// command returns a command that runs fn, with the flags that all commands have.
func (f *flags) command(use, short, long, jsonUsage string, fn func(context.Context, *printer) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p := newPrinter(cmd.OutOrStdout(), cmd.ErrOrStderr())
		err := fn(cmd.Context(), p)
		// The output is written also after an error.
		return errors.Join(err, p.flush())
	}
	cmd.Flags().StringVar(&f.dir, "dir", "", "data directory; a daemon may have it open")
	_ = cmd.MarkFlagDirname("dir")
	cmd.Flags().StringVar(&f.backend, "backend", "", "URL of a backend, for example s3://bucket/prefix?region=eu-west-1 or file:///mnt/backup/xdswal; alone or with --dir")
	cmd.Flags().BoolVar(&f.json, "json", false, jsonUsage)
	return cmd
}

// momentFlags adds the flags of a command that restores a moment.
func (f *flags) momentFlags(cmd *cobra.Command, verb string) {
	cmd.Flags().StringVar(&f.at, "at", "", "sequence or time to "+verb+"; default the newest event")
	cmd.Flags().BoolVar(&f.partial, "allow-partial", false, "continue with the events that can be read")
}

const partialHelp = `
The newest events of a running daemon cannot be read. The command then writes
nothing and fails with exit code 3. With --allow-partial it continues with the
events that can be read, and reports the first missing one. --at SEQ does not need
--allow-partial if event SEQ can be read. POST /v1/compact makes the daemon write a
snapshot, which can be read.
`
