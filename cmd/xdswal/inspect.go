package main

import "github.com/spf13/cobra"

func inspectCommands() []*cobra.Command { return nil }
