package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/common/config"
)

const (
	defaultDataDir    = "dendrite-data"
	configName        = "dendrite-config.yaml"
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
		err = generateConfig(generated{serverName: serverName, dir: p.dataDir})
	}
	if err != nil {
		return nil, fmt.Errorf("the data folder %s: %w", p.dataDir, err)
	}
	return config.Load(file)
}
