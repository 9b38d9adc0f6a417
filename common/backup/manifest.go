// Package backup writes all that a server has into a folder, and puts it back: databases, signing key, configuration
// and media. The folder has a manifest when it is complete, and that tells whether it is still whole.
package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/matrix-org/dendrite/common/id"
)

// What is in the folder, beside the databases.
const (
	manifestFile = "manifest.json"
	configFile   = "dendrite-config.yaml"
	keyFile      = "signing_key"
	mediaDir     = "media"
)

// format is the version of the folder's form.
const format = 1

// Manifest is what a backup says of itself.
type Manifest struct {
	Format     int           `json:"format"`
	ServerName id.ServerName `json:"server_name"`
	Version    string        `json:"version"` // of the program
	Time       time.Time     `json:"time"`
	Databases  []Dump        `json:"databases"`
	Files      []File        `json:"files"`
}

// Dump is a database in a backup.
type Dump struct {
	File string `json:"file"`
	Kind string `json:"kind"` // sqlite or postgres
	// Components are those that have their tables there.
	Components []string `json:"components"`
}

// File is a file of a backup.
type File struct {
	Path   string `json:"path"` // with slashes, from the folder
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Read reads the manifest of a backup.
func Read(dir string) (m Manifest, err error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s is no backup: it has no %s", dir, manifestFile)
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("the manifest of %s: %w", dir, err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%s is a backup of format %d, this program knows %d: "+
			"use the release that made it, which is %s", dir, m.Format, format, m.Version)
	}
	return m, nil
}

// Verify compares all files of a backup with its manifest.
func (m *Manifest) Verify(dir string, p *Progress) error {
	var total int64
	for _, f := range m.Files {
		total += f.Size
	}
	stage := p.Stage("verifying", total)
	for _, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return fmt.Errorf("the manifest of %s names %q, which is outside of it", dir, f.Path)
		}
		found, err := digest(filepath.Join(dir, filepath.FromSlash(f.Path)), stage)
		if err != nil {
			return fmt.Errorf("the backup lacks a file: %w", err)
		}
		if found != (File{found.Path, f.Size, f.SHA256}) {
			return fmt.Errorf("%s of the backup has changed since it was made: take another backup", f.Path)
		}
	}
	stage.End()
	return nil
}

// digest reads a file for its size and hash; Path is its own.
func digest(path string, stage *Stage) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(hash, stage), f)
	return File{Path: path, Size: size, SHA256: hex.EncodeToString(hash.Sum(nil))}, err
}
