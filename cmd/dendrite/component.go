package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/tools"
	"github.com/matrix-org/dendrite/common/config"
)

// componentCommand runs one component as a process of its own.
func componentCommand(r row) *cobra.Command {
	var file, public, internal string
	c := &cobra.Command{
		Use:     r.name + " --config FILE",
		GroupID: groupServer,
		Short:   "Run " + r.what,
		Long: fmt.Sprintf(`Runs %s, in a process of its own. It needs Postgres, a Kafka broker and an internal_secret in the
configuration, which all processes share.

To add a replica, start one more: on another machine, with peers.%s naming both, or on this one with addresses of its own.`, r.what, r.name),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if err := cfg.CheckPolylith(); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			addresses := cfg.Listen.For(r.name)
			override(&addresses.Public, public)
			override(&addresses.Internal, internal)
			return launch(c.Context(), options{process: r.name, components: []string{r.name}, config: cfg, addresses: addresses})
		},
	}
	c.AddCommand(tools.Of(r.name)...)
	c.Flags().StringVar(&file, "config", "dendrite-config.yaml", "configuration file")
	c.Flags().StringVar(&public, "public-listen", "", "public address, in place of listen."+r.name+".public")
	c.Flags().StringVar(&internal, "internal-listen", "", "internal address, in place of listen."+r.name+".internal")
	return c
}
