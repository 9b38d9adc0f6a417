package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// place writes a file whole or not at all. Where there is one already, it must be the same, unless it may be replaced.
func place(from, to string, replace bool, stage *Stage) error {
	if _, err := os.Lstat(to); err == nil && !replace {
		return same(from, to, stage)
	}
	return put(from, to, stage)
}

// put writes a file under another name, which it then takes. The files that belong to the one it replaces go when the
// new one is whole: until then the old one is.
func put(from, to string, stage *Stage, belonging ...string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("making the folder of %s: %w", to, err)
	}
	temporary := to + ".restoring"
	if err := ignoreMissing(os.Remove(temporary)); err != nil { // of a restore that was broken off
		return err
	}
	if err := copyFile(from, temporary, stage); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temporary)))
	}
	for _, file := range belonging {
		if err := ignoreMissing(os.Remove(file)); err != nil {
			return err
		}
	}
	if err := os.Rename(temporary, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func same(from, to string, stage *Stage) error {
	a, err := digest(from, stage)
	if err != nil {
		return err
	}
	b, err := digest(to, NewProgress(stage.p.ctx, io.Discard).Stage("", 0))
	if err != nil {
		return err
	}
	if a.Size != b.Size || a.SHA256 != b.SHA256 {
		return fmt.Errorf("%s is there already, and is another one than that of the backup: "+
			"move it away, or give --overwrite", to)
	}
	return nil
}

// copyFile makes a new file for its owner's eyes, and waits until it is on the disk.
func copyFile(from, to string, stage *Stage) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // it was only read
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(f, stage), source)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncFile makes what others have written to a file durable.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
