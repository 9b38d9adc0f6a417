package registration

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v2"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
)

// Bounds of a file.
const (
	maxFile       = 1 << 20 // bytes
	maxNamespaces = 10_000
	maxID         = 255
)

// file is a registration as files have it. Files that others write have more members: they are not for this server.
type file struct {
	ID              string     `yaml:"id"`
	URL             *string    `yaml:"url"`
	ASToken         string     `yaml:"as_token"`
	HSToken         string     `yaml:"hs_token"`
	SenderLocalpart string     `yaml:"sender_localpart"`
	RateLimited     *bool      `yaml:"rate_limited"`
	Protocols       []string   `yaml:"protocols"`
	Namespaces      namespaces `yaml:"namespaces"`

	ReceiveEphemeral  bool `yaml:"receive_ephemeral"`
	PushEphemeral     bool `yaml:"push_ephemeral"`
	UnstableEphemeral bool `yaml:"de.sorunome.msc2409.push_ephemeral"`

	TransactionExtensions bool `yaml:"msc3202"`
	UnstableExtensions    bool `yaml:"org.matrix.msc3202"`

	DeviceManagement bool `yaml:"io.element.msc4190"`
	LegacyToken      bool `yaml:"org.matrix.dendrite.legacy_token"`
}

type namespaces struct {
	Users   []namespace `yaml:"users"`
	Aliases []namespace `yaml:"aliases"`
	Rooms   []namespace `yaml:"rooms"`
}

type namespace struct {
	Regex     string `yaml:"regex"`
	Exclusive bool   `yaml:"exclusive"`
}

// Read reads and checks all files that a configuration names.
func Read(c config.ApplicationServices, server id.ServerName) (*Set, error) {
	files := slices.Clone(c.ConfigFiles)
	if c.ConfigDir != "" {
		entries, err := os.ReadDir(c.ConfigDir)
		if err != nil {
			return nil, fmt.Errorf("application_services.config_dir: %w", err)
		}
		for _, entry := range entries {
			if ext := filepath.Ext(entry.Name()); !entry.IsDir() && (ext == ".yaml" || ext == ".yml") {
				files = append(files, filepath.Join(c.ConfigDir, entry.Name()))
			}
		}
	}
	var all []*Registration
	var problems []error
	for i, name := range files {
		if slices.Contains(files[:i], name) {
			continue
		}
		r, err := readFile(name, server)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		all = append(all, r)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return NewSet(server, all)
}

func readFile(name string, server id.ServerName) (*Registration, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("application_services: %w", err)
	}
	// It is only read: there is nothing that closing could lose.
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: it has more than %d bytes, which no registration needs", name, maxFile)
	}
	return Parse(data, name, server)
}

// Parse reads and checks the text of a file; name is for messages.
func Parse(data []byte, name string, server id.ServerName) (*Registration, error) {
	var f file
	if err := yaml.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// A file with neither key is most often another kind of file.
	var keys map[string]any
	if err := yaml.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("%s: a registration is a map of keys and values: %w", name, err)
	}
	var problems []error
	complain := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s: "+format, append([]any{name, key}, args...)...))
	}
	for _, key := range []string{"id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"} {
		if _, has := keys[key]; !has {
			complain(key, "it is missing: every registration has it (url: null stands for no requests)")
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	r := &Registration{ID: f.ID, ASToken: f.ASToken, HSToken: f.HSToken, File: name, Protocols: f.Protocols,
		RateLimited: f.RateLimited == nil || *f.RateLimited,
		Ephemeral:   f.ReceiveEphemeral || f.PushEphemeral || f.UnstableEphemeral,
		Encryption:  f.TransactionExtensions || f.UnstableExtensions, DeviceManagement: f.DeviceManagement, LegacyToken: f.LegacyToken}
	if f.ID == "" || len(f.ID) > maxID {
		complain("id", "it has from 1 to %d bytes", maxID)
	}
	if f.ASToken == "" {
		complain("as_token", "it is empty: give a long random text")
	}
	if f.HSToken == "" {
		complain("hs_token", "it is empty: give a long random text")
	}
	for key, token := range map[string]string{"as_token": f.ASToken, "hs_token": f.HSToken} {
		if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			complain(key, "it has a space, a line break or what is not ASCII: no request can carry it")
		}
	}
	if f.ASToken != "" && f.ASToken == f.HSToken {
		complain("hs_token", "it is the same as as_token: who has one would have both")
	}
	r.Sender = id.NewUserID(f.SenderLocalpart, server)
	if _, err := id.ParseUserID(string(r.Sender)); f.SenderLocalpart == "" || err != nil || strings.ContainsAny(f.SenderLocalpart, "@:") {
		complain("sender_localpart", "%q is no localpart of a user: write _irc_bot for @_irc_bot:%s", f.SenderLocalpart, server)
	}
	if f.URL != nil && *f.URL != "" {
		u, err := url.Parse(*f.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			complain("url", "%q is no URL such as http://127.0.0.1:9000; write null if the service wants no requests", *f.URL)
		}
		r.URL = strings.TrimRight(*f.URL, "/")
	}
	for _, kind := range []struct {
		key  string
		from []namespace
		to   *[]Namespace
	}{{"users", f.Namespaces.Users, &r.Users}, {"aliases", f.Namespaces.Aliases, &r.Aliases}, {"rooms", f.Namespaces.Rooms, &r.Rooms}} {
		if len(kind.from) > maxNamespaces {
			complain("namespaces."+kind.key, "there are %d, and at most %d are read", len(kind.from), maxNamespaces)
			continue
		}
		for i, n := range kind.from {
			key := fmt.Sprintf("namespaces.%s[%d].regex", kind.key, i)
			if n.Regex == "" {
				complain(key, "it is empty")
			} else if _, err := compile(n.Regex); err != nil {
				complain(key, "%v", err)
			}
			*kind.to = append(*kind.to, Namespace(n))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return r, nil
}
