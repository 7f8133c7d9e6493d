package main

import (
	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/inspect"
)

func inspectCommands() []*cobra.Command { return inspect.Commands() }
