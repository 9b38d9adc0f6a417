// Package place is where a server lives: its configuration, its signing key and its databases, for the server and for tools.
package place

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	defaultDataDir    = "dendrite-data"
	ConfigName        = "dendrite-config.yaml"
	databaseName      = "dendrite.db" // as in the sample configuration
	defaultServerName = "localhost"
)

// Place says which server a command is about: one with a configuration file, or one that lives in a data folder.
type Place struct{ Config, DataDir string }

// Flags declares the flags that name the place.
func (p *Place) Flags(c *cobra.Command) {
	c.Flags().StringVar(&p.Config, "config", "", "configuration file; without it the data folder's own is used")
	c.Flags().StringVar(&p.DataDir, "data-dir", defaultDataDir, "folder in which everything is kept")
	c.MarkFlagsMutuallyExclusive("config", "data-dir")
}

// Where names the place for people.
func (p Place) Where() string {
	if p.Config != "" {
		return p.Config
	}
	return p.DataDir
}

// File is the configuration.
func (p Place) File() string {
	if p.Config != "" {
		return p.Config
	}
	return filepath.Join(p.DataDir, ConfigName)
}

// Existing reads the configuration of a server that is there.
func (p Place) Existing() (*config.Config, error) {
	if _, err := os.Stat(p.File()); p.Config == "" && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no server in %s: "+
			"name its folder with --data-dir, or its configuration with --config", p.DataDir)
	}
	return config.Load(p.File())
}

// Arguments are the flags that lead another command to the same place.
func (p Place) Arguments() string {
	switch {
	case p.Config != "":
		return " --config " + p.Config
	case p.DataDir != defaultDataDir:
		return " --data-dir " + p.DataDir
	}
	return ""
}

// Load reads the configuration. A data folder that has none yet gets one, for a server of this name.
func (p Place) Load(serverName string) (*config.Config, error) {
	if p.Config != "" {
		return config.Load(p.Config)
	}
	file := filepath.Join(p.DataDir, ConfigName)
	_, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		if serverName == "" {
			serverName = defaultServerName
		}
		if _, err := os.Stat(filepath.Join(p.DataDir, databaseName)); err == nil {
			return nil, fmt.Errorf("the data folder %s has a database, and no %s: "+
				"bring the server's configuration back", p.DataDir, ConfigName)
		}
		err = GenerateConfig(Generated{ServerName: serverName, Dir: p.DataDir})
	}
	if err != nil {
		return nil, fmt.Errorf("the data folder %s: %w", p.DataDir, err)
	}
	return config.Load(file)
}

// LockSuffix is what the name of the file that a server locks has more than its SQLite database.
const LockSuffix = ".lock"

// MarkLock notes beside an SQLite database that it is there. What is noted already is not written again: there may be
// no room for it.
func MarkLock(path string, server id.ServerName) error {
	if noted, err := os.ReadFile(path + LockSuffix); err == nil && string(noted) == string(server)+"\n" {
		return nil
	}
	if err := os.WriteFile(path+LockSuffix, []byte(server+"\n"), 0o600); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// StillThere fails for an SQLite database that a server has run on, and that is gone: what comes instead would be an
// empty one.
func StillThere(connection string) error {
	path, is := sqlutil.SQLitePath(connection)
	if !is {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // whatever else is wrong with it, whoever opens it says so
	}
	if server, err := os.ReadFile(path + LockSuffix); err == nil && len(server) > 0 {
		return fmt.Errorf("the database %s of %s is gone: bring it back, or restore a backup; "+
			"for a new, empty server, remove %[1]s%[3]s", path, strings.TrimSpace(string(server)), LockSuffix)
	}
	return nil
}

// Invocation is how the user can call this program, for commands that are printed to be copied.
func Invocation() string {
	if strings.Contains(os.Args[0], string(filepath.Separator)+"go-build") {
		return "go run ./cmd/dendrite"
	}
	return os.Args[0]
}
