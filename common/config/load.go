package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v2"
)

// Load reads and checks a file.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s: name one with --config, or make one with `dendrite generate-config`", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("finding the folder of %s: %w", path, err)
	}
	c, err := Parse(data, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse reads and checks the text of a file; dir is what its relative paths are relative to.
func Parse(data []byte, dir string) (*Config, error) {
	// The version comes first: in a file of another version, all other complaints would mislead.
	var head struct {
		Version *int `yaml:"version"`
	}
	if err := yaml.Unmarshal(data, &head); err == nil && (head.Version == nil || *head.Version != Version) {
		given := "none"
		if head.Version != nil {
			given = fmt.Sprint(*head.Version)
		}
		return nil, fmt.Errorf("version: this server reads version %d of the file, not %s: take the sample dendrite-config.yaml as a guide and write `version: %d`",
			Version, given, Version)
	}
	c := Default()
	// A strict reader takes an entry that a map has already for one that the file has twice.
	peers := c.Peers
	c.Peers = nil
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, explain(err)
	}
	if c.Matrix.RateLimits.ByName == nil {
		c.Matrix.RateLimits.ByName = make(map[string]RateLimit) // the file has the section, and names no limit
	}
	for name, limit := range defaultRateLimits {
		if _, has := c.Matrix.RateLimits.ByName[name]; !has {
			c.Matrix.RateLimits.ByName[name] = limit
		}
	}
	maps.Copy(peers, c.Peers)
	c.Peers = peers
	c.resolve(dir)
	return c, c.Validate()
}

// resolve makes relative paths relative to the file.
func (c *Config) resolve(dir string) {
	for _, p := range []*string{&c.Matrix.PrivateKey, &c.Media.BasePath, &c.Kafka.TLS.CAFile, &c.Kafka.TLS.Certificate, &c.Kafka.TLS.Key,
		&c.Listen.Monolith.TLS.Certificate, &c.Listen.Monolith.TLS.Key, &c.ApplicationServices.ConfigDir, &c.Logging.File} {
		*p = absolute(dir, *p)
	}
	for _, list := range [][]string{c.Network.CAFiles, c.ApplicationServices.ConfigFiles} {
		for i := range list {
			list[i] = absolute(dir, list[i])
		}
	}
	sqlite := func(s string) string {
		if path, is := strings.CutPrefix(s, "file:"); is && !strings.HasPrefix(path, "//") {
			return "file:" + absolute(dir, path)
		}
		return s
	}
	c.Database.ConnectionString = sqlite(c.Database.ConnectionString)
	for component, s := range c.Database.ConnectionStrings {
		c.Database.ConnectionStrings[component] = sqlite(s)
	}
}

func absolute(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

var unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type config\.(\w+)$`)

// explain turns the YAML library's complaints into ones that say what to do.
func explain(err error) error {
	wrong, is := errors.AsType[*yaml.TypeError](err)
	if !is {
		return fmt.Errorf("it is not YAML: %w", err)
	}
	sections := make(map[string]section)
	describe(reflect.TypeFor[Config](), "", sections)
	var all []error
	for _, message := range wrong.Errors {
		if m := unknownField.FindStringSubmatch(message); m != nil {
			s := sections[m[3]]
			message = fmt.Sprintf("line %s: unknown key %s%s: %s", m[1], s.prefix, m[2], suggest(m[2], s, sections))
		}
		all = append(all, errors.New(message))
	}
	return errors.Join(all...)
}

// section is a struct of the file: where it is, and its keys.
type section struct {
	prefix string
	keys   []string
}

func describe(t reflect.Type, prefix string, into map[string]section) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	s := section{prefix: prefix}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" {
			describe(f.Type, prefix, into)
			continue
		}
		s.keys = append(s.keys, key)
		describe(f.Type, prefix+key+".", into)
	}
	if _, has := into[t.Name()]; !has {
		into[t.Name()] = s
	}
}

// suggest names the key that was meant: one of the same section, else one of the same name elsewhere, else all there are.
func suggest(key string, s section, sections map[string]section) string {
	if near := nearest(key, s.keys); near != "" {
		return fmt.Sprintf("did you mean %s%s?", s.prefix, near)
	}
	var elsewhere []string
	for _, other := range sections {
		if slices.Contains(other.keys, key) {
			elsewhere = append(elsewhere, other.prefix+key)
		}
	}
	if len(elsewhere) > 0 {
		return "did you mean " + slices.Min(elsewhere) + "?"
	}
	return "known here are " + strings.Join(s.keys, ", ")
}

// nearest is the word of the list that is at most a third of its letters away, or nothing.
func nearest(word string, list []string) string {
	best, distance := "", len(word)/3+2
	for _, candidate := range list {
		if d := levenshtein(word, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitute := diagonal
			if a[i-1] != b[j-1] {
				substitute++
			}
			diagonal = row[j]
			row[j] = min(substitute, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
