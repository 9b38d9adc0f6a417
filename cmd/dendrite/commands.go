package main

import (
	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite"
	"github.com/matrix-org/dendrite/cmd/dendrite/tools"
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
	root.AddGroup(&cobra.Group{ID: groupServer, Title: "The server:"}, &cobra.Group{ID: tools.Group, Title: "Tools:"})
	root.AddCommand(monolithCommand("monolith"))
	for _, row := range topology() {
		root.AddCommand(componentCommand(row))
	}
	root.AddCommand(tools.Commands()...)
	return root
}

// groupServer is the group of the subcommands that run the server in the help text.
const groupServer = "server"
