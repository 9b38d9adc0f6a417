package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/backup"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

func backupCommand() *cobra.Command {
	var p place.Place
	var to string
	c := &cobra.Command{
		Use:     "backup --to DIR",
		GroupID: Group,
		Short:   "Write all that the server has into a folder",
		Long: `Writes the databases, the signing key, the configuration and the media into a folder, which must be empty
or not be there. The server may run or not: whatever it has acknowledged before is in the backup. The backup is complete
when the folder has a manifest.json. Postgres takes pg_dump, of a version that is not older than the server's.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.Existing()
			if err != nil {
				return err
			}
			if _, err := place.ReadKey(cfg.Matrix.PrivateKey, cfg.Matrix.ServerName); err != nil {
				return err
			}
			source := backupSource(cfg, p.File())
			if err := ownDatabases(c.Context(), cfg); err != nil {
				return err
			}
			progress := backup.NewProgress(c.Context(), c.ErrOrStderr())
			if err := backup.Write(c.Context(), to, source, progress); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "The backup of %s is in %s. Keep it secret, and elsewhere.\n",
				cfg.Matrix.ServerName, to)
			return err
		},
	}
	p.Flags(c)
	c.Flags().StringVar(&to, "to", "", "folder to write to")
	if err := c.MarkFlagRequired("to"); err != nil {
		panic(err) // the flag is declared above
	}
	return c
}

func restoreCommand() *cobra.Command {
	var p place.Place
	var from string
	var overwrite bool
	c := &cobra.Command{
		Use:     "restore --from DIR",
		GroupID: Group,
		Short:   "Put back what 'backup' has written",
		Long: `Puts the databases, the signing key and the media of a backup to where the configuration wants them, and
the configuration itself if there is none. The server must not run. Nothing that is there is replaced without
--overwrite, and a Postgres database must be empty in any case. All files are compared with the backup's manifest
first.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return restore(c, p, from, overwrite) },
	}
	p.Flags(c)
	c.Flags().StringVar(&from, "from", "", "folder of the backup")
	c.Flags().BoolVar(&overwrite, "overwrite", false,
		"replace the SQLite database, the key and the media that are there")
	if err := c.MarkFlagRequired("from"); err != nil {
		panic(err) // the flag is declared above
	}
	return c
}

func restore(c *cobra.Command, p place.Place, from string, overwrite bool) (err error) {
	progress := backup.NewProgress(c.Context(), c.ErrOrStderr())
	manifest, err := backup.Read(from)
	if err != nil {
		return err
	}
	if err := manifest.Verify(from, progress); err != nil {
		return err
	}
	if _, err := os.Stat(p.File()); errors.Is(err, fs.ErrNotExist) {
		if err := backup.ReplaceConfig(from, p.File(), progress); err != nil {
			return err
		}
	}
	cfg, err := config.Load(p.File())
	if err != nil {
		return err
	}
	if cfg.Matrix.ServerName != manifest.ServerName {
		return fmt.Errorf("%s is the configuration of %s, and the backup is of %s",
			p.File(), cfg.Matrix.ServerName, manifest.ServerName)
	}
	source := backupSource(cfg, p.File())
	for _, db := range source.Databases {
		path, is := sqlutil.SQLitePath(db.Connection)
		if !is {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("the folder of the database: %w", err)
		}
		var lock io.Closer
		if lock, err = place.Lock(path + place.LockSuffix); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lock.Close()) }()
		// Until the database is there, which comes last, a server that is started must not make an empty one.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := place.MarkLock(path, cfg.Matrix.ServerName); err != nil {
				return err
			}
		}
	}
	if err := manifest.Restore(c.Context(), from, source, overwrite, progress); err != nil {
		return err
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "Restored %s as it was on %s.\n",
		cfg.Matrix.ServerName, manifest.Time.Format("2006-01-02 15:04:05 MST"))
	if len(cfg.Kafka.Addresses) > 0 {
		fmt.Fprintf(out, "Before the components start, delete the topics of Kafka that begin with %q, "+
			"or give kafka.topic_prefix another value:\nthey may have what the databases no longer have.\n",
			cfg.Kafka.TopicPrefix)
	}
	_, err = fmt.Fprintf(out, "To run the server: %s%s\n", place.Invocation(), p.Arguments())
	return err
}

// backupSource says where the configuration wants things.
func backupSource(cfg *config.Config, file string) backup.Source {
	return backup.Source{ServerName: cfg.Matrix.ServerName, Config: file, Key: cfg.Matrix.PrivateKey,
		Media: cfg.Media.BasePath, Databases: place.Databases(cfg)}
}

// ownDatabases makes sure that all databases are there, and this server's.
func ownDatabases(ctx context.Context, cfg *config.Config) error {
	for _, db := range place.Databases(cfg) {
		if path, is := sqlutil.SQLitePath(db.Connection); is {
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("there is no database: %w", err)
			}
		}
		opened, err := place.LookAtDatabase(ctx, cfg, db.Components[0], toolWait)
		if err != nil {
			return err
		}
		if err := opened.Close(); err != nil {
			return err
		}
	}
	return nil
}
