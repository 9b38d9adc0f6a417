package tools

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
)

func generateConfigCommand() *cobra.Command {
	var g place.Generated
	c := &cobra.Command{
		Use:     "generate-config --server-name NAME",
		GroupID: Group,
		Short:   "Write a complete configuration, with keys and secrets",
		Long: `Writes dendrite-config.yaml, in which every key is explained, and the signing key it names. What is there already is not
overwritten. For components as processes of their own give --database and --kafka.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := place.GenerateConfig(g); err != nil {
				return err
			}
			file := filepath.Join(g.Dir, place.ConfigName)
			_, err := fmt.Fprintf(c.OutOrStdout(), "Wrote %s. To run the server: %s --config %s\n", file, place.Invocation(), file)
			return err
		},
	}
	c.Flags().StringVar(&g.ServerName, "server-name", "", "name that user ids end with, such as example.org")
	c.Flags().StringVar(&g.Database, "database", "", "postgresql://user:password@host/database (default SQLite, beside the configuration)")
	c.Flags().StringVar(&g.Kafka, "kafka", "", "HOST:PORT of a Kafka broker, for components as processes of their own")
	c.Flags().StringVar(&g.Jaeger, "jaeger", "", "HOST:PORT of a Jaeger agent, for traces")
	c.Flags().BoolVar(&g.Hosts, "hosts", false, "every component is on a host of its own that has its name, as in docker-compose")
	c.Flags().StringVar(&g.Dir, "dir", ".", "folder to write to")
	if err := c.MarkFlagRequired("server-name"); err != nil {
		panic(err) // the flag is declared above
	}
	return c
}

func generateKeysCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "generate-keys",
		GroupID: Group,
		Short:   "Write a new signing key",
		Long: `Writes a new signing key, which matrix.private_key of the configuration names. A key that is there already is not
overwritten: other servers know this server by it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := place.GenerateKey(file); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "Wrote %s. Keep it secret, and keep it.\n", file)
			return err
		},
	}
	c.Flags().StringVar(&file, "private-key", "matrix_key.pem", "file to write")
	return c
}
