package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/config"
)

// monolithFlags are those of `dendrite` and `dendrite monolith`.
type monolithFlags struct {
	place.Place
	serverName, listen, internal string
}

func monolithCommand(name string) *cobra.Command {
	var f monolithFlags
	c := &cobra.Command{
		Use:     name,
		GroupID: groupServer,
		Short:   "Run all components in this process",
		Long: `Runs all components in this process.

Without --config everything is kept in one folder, ./dendrite-data or --data-dir: the database (SQLite), the media, the keys and the
configuration, dendrite-config.yaml. They are made at the first start. With --config the configuration says where things are.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runMonolith(c, f) },
	}
	if name == "dendrite" {
		c.GroupID = ""
	}
	f.Place.Flags(c)
	c.Flags().StringVar(&f.serverName, "server-name", "", "name that user ids end with, for a new data folder (default localhost)")
	c.Flags().StringVar(&f.listen, "listen", "", "public address, in place of listen.monolith.public")
	c.Flags().StringVar(&f.internal, "internal-listen", "", "internal address (health, metrics), in place of listen.monolith.internal")
	return c
}

func runMonolith(c *cobra.Command, f monolithFlags) error {
	cfg, err := f.Load(f.serverName)
	if err != nil {
		return err
	}
	if f.serverName != "" && string(cfg.Matrix.ServerName) != f.serverName {
		return fmt.Errorf("--server-name: %s is the server %s, and a server cannot be renamed: give --data-dir another folder for %s",
			f.Where(), cfg.Matrix.ServerName, f.serverName)
	}
	override(&cfg.Listen.Monolith.Public, f.listen)
	override(&cfg.Listen.Monolith.Internal, f.internal)
	return launch(c.Context(), options{
		process:    "monolith",
		components: config.Components(),
		config:     cfg,
		addresses:  cfg.Listen.For("monolith"),
		tls:        cfg.Listen.Monolith.TLS,
		started:    func(public string) { greet(c.OutOrStdout(), cfg, f.Place, public) },
	})
}

func override(value *string, flag string) {
	if flag != "" {
		*value = flag
	}
}

// greet says where the server is, and how to get in.
func greet(w io.Writer, cfg *config.Config, p place.Place, public string) {
	fmt.Fprintf(w, "Dendrite serves %s at http://%s, from %s.\n", cfg.Matrix.ServerName, public, p.Where())
	registration := "Registration is closed."
	if cfg.Matrix.Registration.Enabled {
		registration = "Registration is open to who has a token."
		if cfg.Matrix.Registration.Verification == config.VerificationNone {
			registration = "Registration is open to everybody."
		}
	}
	fmt.Fprintf(w, "%s To make an account: %s create-account%s --username NAME [--admin]\n", registration, place.Invocation(), p.Arguments())
}
