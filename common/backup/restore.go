package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ReplaceConfig puts the configuration of a backup to where there is none.
func ReplaceConfig(dir, to string, p *Progress) error {
	stage := p.Stage("configuration", 0)
	if err := place(filepath.Join(dir, configFile), to, false, stage); err != nil {
		return fmt.Errorf("the configuration: %w", err)
	}
	stage.End()
	return nil
}

// Restore puts a backup that was verified to where a server's configuration wants it. The databases come last, so that
// whatever they know is there. Nothing that is there is replaced, unless that is wanted; a Postgres database must be
// empty in any case.
func (m *Manifest) Restore(ctx context.Context, dir string, s Source, overwrite bool, p *Progress) error {
	targets, err := m.targets(s)
	if err != nil {
		return err
	}
	for _, connection := range targets {
		if err := vacant(ctx, connection, overwrite); err != nil {
			return err
		}
	}
	few := p.Stage("key", 0)
	if err := place(filepath.Join(dir, keyFile), s.Key, overwrite, few); err != nil {
		return fmt.Errorf("the signing key: %w", err)
	}
	few.End()
	if err := m.restoreMedia(dir, s.Media, overwrite, p); err != nil {
		return err
	}
	var postgres []Database
	for i, d := range m.Databases {
		stage := p.Stage("database", 0)
		if path, is := sqlutil.SQLitePath(targets[i]); is {
			err = restoreSQLite(filepath.Join(dir, d.File), path, stage)
		} else {
			postgres = append(postgres, Database{Connection: targets[i]})
			err = restorePostgres(ctx, filepath.Join(dir, d.File), targets[i])
		}
		if err != nil {
			return fmt.Errorf("the database: %w", err)
		}
		stage.End()
	}
	dbs, closeAll, err := openAll(ctx, postgres)
	if err == nil {
		err = eventlog.Renew(ctx, dbs)
	}
	return errors.Join(err, closeAll())
}

// targets are the connection strings of the configuration for the databases of the backup.
func (m *Manifest) targets(s Source) (targets []string, err error) {
	for _, d := range m.Databases {
		i := slices.IndexFunc(s.Databases, func(db Database) bool { return slices.Equal(db.Components, d.Components) })
		if i < 0 {
			return nil, fmt.Errorf("the backup has one database for %s: the configuration must have that too "+
				"(database.connection_strings)", strings.Join(d.Components, ", "))
		}
		connection := s.Databases[i].Connection
		kind := "postgres"
		if _, is := sqlutil.SQLitePath(connection); is {
			kind = "sqlite"
		}
		if kind != d.Kind {
			return nil, fmt.Errorf("the backup is of %s, and the configuration names %s: "+
				"a backup is restored to the kind of database that it is of", d.Kind, kind)
		}
		targets = append(targets, connection)
	}
	if len(s.Databases) != len(targets) {
		return nil, fmt.Errorf("the configuration names %d databases, and the backup has %d",
			len(s.Databases), len(targets))
	}
	return targets, nil
}

// vacant tells why a database cannot take the backup.
func vacant(ctx context.Context, connection string, overwrite bool) error {
	if path, is := sqlutil.SQLitePath(connection); is {
		for _, suffix := range append(sqlutil.SQLiteSuffixes(), "") {
			info, err := os.Stat(path + suffix)
			if err == nil && info.Size() > 0 && !overwrite {
				return fmt.Errorf("%s is there already: move it away, with %[1]s-wal and %[1]s-shm, "+
					"or give --overwrite", path)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	dbs, closeAll, err := openAll(ctx, []Database{{Connection: connection}})
	tables := 0
	if err == nil {
		tables, err = dbs[0].Tables(ctx)
	}
	if tables > 0 {
		err = errors.New("the database that the configuration names is not empty: " +
			"make a new one with createdb, and name it")
	}
	return errors.Join(err, closeAll())
}

func restoreSQLite(from, to string, stage *Stage) error {
	var belonging []string // a log that is there belongs to another file
	for _, suffix := range sqlutil.SQLiteSuffixes() {
		belonging = append(belonging, to+suffix)
	}
	return put(from, to, stage, belonging...)
}

func (m *Manifest) restoreMedia(dir, to string, overwrite bool, p *Progress) error {
	var total int64
	var media []string
	for _, f := range m.Files {
		if rel, is := strings.CutPrefix(f.Path, mediaDir+"/"); is {
			media = append(media, filepath.FromSlash(rel))
			total += f.Size
		}
	}
	stage := p.Stage("media", total)
	for _, rel := range media {
		if err := place(filepath.Join(dir, mediaDir, rel), filepath.Join(to, rel), overwrite, stage); err != nil {
			return fmt.Errorf("the media: %w", err)
		}
	}
	stage.End()
	return nil
}
