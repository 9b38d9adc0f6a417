package tools

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// checkWait is how long check-config waits for a database.
const checkWait = 2 * time.Second

func checkConfigCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "check-config",
		GroupID: Group,
		Short:   "Check a configuration and the files it names",
		Long: `Reads a configuration as the server would, with the key and certificates that it names, and asks the
databases that are there whether they belong to this server. If kafka.addresses is set, it is checked as one for
components in processes of their own.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if err := checkFiles(cfg); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if err := checkDatabases(c, cfg); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is in order: the server %s.\n", file, cfg.Matrix.ServerName)
			return err
		},
	}
	c.Flags().StringVar(&file, "config", place.ConfigName, "configuration file")
	return c
}

// checkFiles checks what a configuration refers to.
func checkFiles(cfg *config.Config) error {
	_, keyErr := place.ReadKey(cfg.Matrix.PrivateKey, cfg.Matrix.ServerName)
	_, networkErr := netpolicy.New(cfg.Network)
	_, registrationErr := registration.Read(cfg.ApplicationServices, cfg.Matrix.ServerName)
	problems := []error{keyErr, networkErr, registrationErr}
	if len(cfg.Kafka.Addresses) > 0 {
		problems = append(problems, cfg.CheckPolylith())
	}
	if t := cfg.Listen.Monolith.TLS; t.Certificate != "" {
		if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
			problems = append(problems, fmt.Errorf("listen.monolith.tls: %w", err))
		}
	}
	return errors.Join(problems...)
}

// checkDatabases asks the databases whose they are. One that is not made yet, or that cannot be reached from here, is
// no error.
func checkDatabases(c *cobra.Command, cfg *config.Config) error {
	for _, database := range place.Databases(cfg) {
		if path, is := sqlutil.SQLitePath(database.Connection); is {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				if err := place.StillThere(database.Connection); err != nil {
					return err
				}
				continue
			}
		}
		db, err := place.LookAtDatabase(c.Context(), cfg, database.Components[0], checkWait)
		if errors.Is(err, sqlutil.ErrUnreachable) {
			fmt.Fprintf(c.OutOrStdout(), "Not checked: %v\n", err)
			continue
		}
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	return nil
}
