package main

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
	configName        = "dendrite-config.yaml"
	databaseName      = "dendrite.db" // as in the sample configuration
	defaultServerName = "localhost"
)

// place says which server a command is about: one with a configuration file, or one that lives in a data folder.
type place struct{ config, dataDir string }

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.config, "config", "", "configuration file; without it the data folder's own is used")
	c.Flags().StringVar(&p.dataDir, "data-dir", defaultDataDir, "folder in which everything is kept")
	c.MarkFlagsMutuallyExclusive("config", "data-dir")
}

// where names the place for people.
func (p place) where() string {
	if p.config != "" {
		return p.config
	}
	return p.dataDir
}

// file is the configuration.
func (p place) file() string {
	if p.config != "" {
		return p.config
	}
	return filepath.Join(p.dataDir, configName)
}

// existing reads the configuration of a server that is there.
func (p place) existing() (*config.Config, error) {
	if _, err := os.Stat(p.file()); p.config == "" && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no server in %s: "+
			"name its folder with --data-dir, or its configuration with --config", p.dataDir)
	}
	return config.Load(p.file())
}

// arguments are the flags that lead another command to the same place.
func (p place) arguments() string {
	switch {
	case p.config != "":
		return " --config " + p.config
	case p.dataDir != defaultDataDir:
		return " --data-dir " + p.dataDir
	}
	return ""
}

// load reads the configuration. A data folder that has none yet gets one, for a server of this name.
func (p place) load(serverName string) (*config.Config, error) {
	if p.config != "" {
		return config.Load(p.config)
	}
	file := filepath.Join(p.dataDir, configName)
	_, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		if serverName == "" {
			serverName = defaultServerName
		}
		if _, err := os.Stat(filepath.Join(p.dataDir, databaseName)); err == nil {
			return nil, fmt.Errorf("the data folder %s has a database, and no %s: "+
				"bring the server's configuration back", p.dataDir, configName)
		}
		err = generateConfig(generated{serverName: serverName, dir: p.dataDir})
	}
	if err != nil {
		return nil, fmt.Errorf("the data folder %s: %w", p.dataDir, err)
	}
	return config.Load(file)
}

// lockSuffix is what the name of the file that a server locks has more than its SQLite database.
const lockSuffix = ".lock"

// markLock notes beside an SQLite database that it is there. What is noted already is not written again: there may be
// no room for it.
func markLock(path string, server id.ServerName) error {
	if noted, err := os.ReadFile(path + lockSuffix); err == nil && string(noted) == string(server)+"\n" {
		return nil
	}
	if err := os.WriteFile(path+lockSuffix, []byte(server+"\n"), 0o600); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// stillThere fails for an SQLite database that a server has run on, and that is gone: what comes instead would be an
// empty one.
func stillThere(connection string) error {
	path, is := sqlutil.SQLitePath(connection)
	if !is {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // whatever else is wrong with it, whoever opens it says so
	}
	if server, err := os.ReadFile(path + lockSuffix); err == nil && len(server) > 0 {
		return fmt.Errorf("the database %s of %s is gone: bring it back, or restore a backup; "+
			"for a new, empty server, remove %[1]s%[3]s", path, strings.TrimSpace(string(server)), lockSuffix)
	}
	return nil
}
