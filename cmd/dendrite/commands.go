package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite"
)

// rootCommand is `dendrite`, which without a subcommand is `dendrite monolith`.
func rootCommand() *cobra.Command {
	root := monolithCommand("dendrite")
	root.Version = dendrite.Version
	root.SilenceUsage, root.SilenceErrors = true, true
	root.Short = "A Matrix homeserver"
	root.Long = `Dendrite is a Matrix homeserver.

Without a subcommand it runs all its components in this process, and keeps everything in ./dendrite-data:

  dendrite                                                  run a server on this machine
  dendrite create-account --username alice --admin          make its first account
  dendrite --server-name example.org --listen 0.0.0.0:8008  run it under a name of its own

A server for others has a configuration:

  dendrite generate-config --server-name example.org --database postgresql://dendrite@localhost/dendrite --dir /etc/dendrite
  dendrite check-config --config /etc/dendrite/dendrite-config.yaml
  dendrite --config /etc/dendrite/dendrite-config.yaml

And each component can be a process of its own, in any number, with the same configuration (see INSTALL.md):

  dendrite roomserver --config /etc/dendrite/dendrite-config.yaml`
	root.AddGroup(&cobra.Group{ID: groupServer, Title: "The server:"}, &cobra.Group{ID: groupTools, Title: "Tools:"})
	root.AddCommand(monolithCommand("monolith"))
	for _, row := range topology() {
		root.AddCommand(componentCommand(row))
	}
	root.AddCommand(generateConfigCommand(), generateKeysCommand(), createAccountCommand(), checkConfigCommand(), healthCommand(),
		backupCommand(), restoreCommand(), consumersCommand(), deadLettersCommand())
	return root
}

// Groups of subcommands in the help text.
const (
	groupServer = "server"
	groupTools  = "tools"
)

// invocation is how the user can call this program, for commands that are printed to be copied.
func invocation() string {
	if strings.Contains(os.Args[0], string(filepath.Separator)+"go-build") {
		return "go run ./cmd/dendrite"
	}
	return os.Args[0]
}
