package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/matrix-org/dendrite"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Source is the server that is backed up.
type Source struct {
	ServerName id.ServerName
	Config     string // file
	Key        string // file
	Media      string // folder, which need not be there
	Databases  []Database
}

// Database is one of a server.
type Database struct {
	Connection string
	Components []string // that have their tables there
}

// Write makes a backup in a folder, which must be empty or not be there. Whatever the server has acknowledged before
// Write began is in it. The databases come first and the media after them, so that whatever the databases know is
// there.
func Write(ctx context.Context, dir string, s Source, p *Progress) (err error) {
	work, err := workFolder(dir)
	if err != nil {
		return fmt.Errorf("the folder for the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	m := Manifest{Format: format, ServerName: s.ServerName, Version: dendrite.Version, Time: time.Now().UTC()}
	if m.Databases, err = dumpAll(ctx, work, s.Databases, p); err != nil {
		return err
	}
	few := p.Stage("key and configuration", 0)
	for from, to := range map[string]string{s.Config: configFile, s.Key: keyFile} {
		if err := copyFile(from, filepath.Join(work, to), few); err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
	}
	few.End()
	if err := copyMedia(ctx, s.Media, filepath.Join(work, mediaDir), p); err != nil {
		return err
	}
	if err := m.list(work, p); err != nil {
		return err
	}
	if err := appear(work, dir); err != nil {
		return fmt.Errorf("the folder for the backup: %w", err)
	}
	return nil
}

// workFolder makes the folder in which a backup is made, of mode 0700: beside the one that it will be, or inside, where
// that is there already. What is there may be another file system, or the way to it.
func workFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return "", fmt.Errorf("%s is not empty: give a folder of its own to each backup", dir)
	case err == nil:
		return os.MkdirTemp(dir, unfinished)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+unfinished)
}

// unfinished is in the name of a folder in which a backup is made.
const unfinished = ".unfinished-"

// appear gives a backup that is complete its place. The manifest, without which it is no backup, comes last.
func appear(work, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(work, filepath.Clean(dir)); err != nil {
			return err
		}
		return syncDir(filepath.Dir(filepath.Clean(dir)))
	}
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != manifestFile {
			if err := os.Rename(filepath.Join(work, e.Name()), filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(work, manifestFile), filepath.Join(dir, manifestFile)); err != nil {
		return err
	}
	return errors.Join(os.Remove(work), syncDir(dir))
}

// list adds all files to the manifest, and writes it.
func (m *Manifest) list(work string, p *Progress) error {
	stage := p.Stage("manifest", 0)
	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return syncDir(path)
		}
		f, err := digest(path, stage)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(work, path)
		f.Path = filepath.ToSlash(rel)
		m.Files = append(m.Files, f)
		return err
	})
	if err != nil {
		return fmt.Errorf("listing the backup: %w", err)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	path := filepath.Join(work, manifestFile)
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	stage.End()
	return errors.Join(syncFile(path), syncDir(work))
}

// copyMedia copies the files that are there. One that goes away meanwhile was removed by the server.
func copyMedia(ctx context.Context, from, to string, p *Progress) error {
	var total int64
	sizes := func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, gone := d.Info(); gone == nil {
				total += info.Size()
			}
		}
		return ignoreMissing(err)
	}
	if err := filepath.WalkDir(from, sizes); err != nil {
		return fmt.Errorf("media.base_path: %w", err)
	}
	stage := p.Stage("media", total)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(ignoreMissing(err), ctx.Err())
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return ignoreMissing(copyFile(path, target, stage))
	})
	if err != nil {
		return fmt.Errorf("copying the media: %w", err)
	}
	stage.End()
	return nil
}

// dumpAll writes all databases.
func dumpAll(ctx context.Context, work string, all []Database, p *Progress) (dumps []Dump, err error) {
	var postgres []Database
	for i, db := range all {
		path, is := sqlutil.SQLitePath(db.Connection)
		if !is {
			postgres = append(postgres, db)
			continue
		}
		d := Dump{File: fmt.Sprintf("database-%d.sqlite", i+1), Kind: "sqlite", Components: db.Components}
		stage := p.Stage("database", 0)
		file := filepath.Join(work, d.File)
		if err := sqlutil.CopySQLite(ctx, path, file, stage.At); err != nil {
			return nil, err
		}
		if err := alone(file); err != nil {
			return nil, err
		}
		stage.End()
		dumps = append(dumps, d)
	}
	more, err := dumpPostgres(ctx, work, postgres, p)
	return append(dumps, more...), err
}

// alone makes an SQLite file durable, and removes what SQLite keeps beside one that is open.
func alone(file string) error {
	for _, suffix := range sqlutil.SQLiteSuffixes() {
		info, err := os.Stat(file + suffix)
		if err == nil && strings.HasSuffix(suffix, "-wal") && info.Size() > 0 {
			return fmt.Errorf("%s%s is not empty: the copy is not whole", file, suffix)
		}
		if err := ignoreMissing(os.Remove(file + suffix)); err != nil {
			return err
		}
	}
	return syncFile(file)
}
