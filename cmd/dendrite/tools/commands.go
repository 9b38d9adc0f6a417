// Package tools is the commands of dendrite for operators, but for those that run the server.
package tools

import "github.com/spf13/cobra"

// Group is that of these commands in the help text.
const Group = "tools"

// Commands are all of them, in the order of the help text.
func Commands() []*cobra.Command {
	return []*cobra.Command{generateConfigCommand(), generateKeysCommand(), createAccountCommand(), checkConfigCommand(),
		healthCommand(), backupCommand(), restoreCommand(), consumersCommand(), deadLettersCommand()}
}
