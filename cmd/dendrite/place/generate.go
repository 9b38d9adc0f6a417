package place

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/matrix-org/dendrite"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// MetricsToken is a file that has metrics.token alone, for Prometheus.
const MetricsToken = "metrics-token"

// Generated is what a configuration is made for.
type Generated struct {
	ServerName string
	Database   string // empty: SQLite
	Kafka      string // empty: none
	Jaeger     string // empty: no tracing
	Hosts      bool   // components are on hosts of their own, which have their names
	Dir        string // to write to
}

// GenerateConfig writes the sample configuration, filled in, and a key beside it.
func GenerateConfig(g Generated) error {
	values := map[string]string{
		"matrix.server_name":                g.ServerName,
		"matrix.registration.shared_secret": rand.Text(),
		"internal_secret":                   rand.Text(),
	}
	if g.Database != "" {
		values["database.connection_string"] = g.Database
	}
	if g.Kafka != "" {
		values["kafka.addresses"] = "[" + quoted(g.Kafka) + "]"
	}
	if g.Jaeger != "" {
		values["tracing.enabled"], values["tracing.jaeger.agent"] = "true", g.Jaeger
	}
	if g.Hosts {
		spread(values)
		values["metrics.token"] = rand.Text()
	}
	text, err := fill(dendrite.SampleConfig, values)
	if err != nil {
		return err
	}
	// Nothing is written that would not be read.
	cfg, err := config.Parse([]byte(text), g.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(g.Dir, 0o700); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	if err := writeNew(filepath.Join(g.Dir, ConfigName), []byte(text)); err != nil {
		return err
	}
	if g.Hosts {
		if err := writeNew(filepath.Join(g.Dir, MetricsToken), []byte(cfg.Metrics.Token)); err != nil {
			return err
		}
	}
	// A key that is there already is this server's. A database without a key is a server's that has lost it.
	if path, is := sqlutil.SQLitePath(cfg.Database.ConnectionString); is {
		_, noKey := os.Stat(cfg.Matrix.PrivateKey)
		if _, err := os.Stat(path); err == nil && errors.Is(noKey, fs.ErrNotExist) {
			return fmt.Errorf("%s is the database of a server whose signing key %s is missing: bring it back, or "+
				"make another one with `dendrite generate-keys`", path, cfg.Matrix.PrivateKey)
		}
	}
	if err := GenerateKey(cfg.Matrix.PrivateKey); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// spread lets each component listen on all addresses of its host, and find the others at theirs.
func spread(values map[string]string) {
	defaults := config.Default().Listen
	for _, name := range config.Components() {
		a := defaults.For(name)
		for key, address := range map[string]string{"public": a.Public, "internal": a.Internal} {
			if _, port, err := net.SplitHostPort(address); err == nil { // an empty address stays empty
				values["listen."+name+"."+key] = net.JoinHostPort("0.0.0.0", port)
				if key == "internal" {
					values["peers."+name] = "[" + quoted("http://"+net.JoinHostPort(name, port)) + "]"
				}
			}
		}
	}
}

// fill gives keys of a configuration, such as matrix.server_name, other values than those they have. Comments stay.
func fill(text string, values map[string]string) (string, error) {
	var path []string // keys that the line is inside of, by depth
	lines := strings.Split(text, "\n")
	left := len(values)
	for i, line := range lines {
		body := strings.TrimLeft(line, " ")
		key, _, isKey := strings.Cut(body, ":")
		if !isKey || strings.HasPrefix(body, "#") {
			continue
		}
		indent := len(line) - len(body)
		path = append(path[:min(indent/2, len(path))], key)
		if value, has := values[strings.Join(path, ".")]; has {
			if !strings.HasPrefix(value, "[") && value != "true" {
				value = quoted(value)
			}
			lines[i] = line[:indent] + key + ": " + value
			left--
		}
	}
	if left > 0 {
		return "", fmt.Errorf("%d of the keys to fill in are not in the sample configuration", left)
	}
	return strings.Join(lines, "\n"), nil
}

// quoted writes a string of YAML.
func quoted(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }

// writeNew writes a file for its owner's eyes, and fails with os.ErrExist if there is one.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already and is not overwritten: %w", path, os.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
