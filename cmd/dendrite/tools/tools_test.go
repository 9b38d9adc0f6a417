package tools

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/config"
)

// command runs a tool with these arguments.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := &cobra.Command{Use: "dendrite", SilenceUsage: true, SilenceErrors: true}
	root.AddGroup(&cobra.Group{ID: Group})
	root.AddCommand(Commands()...)
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestGeneratedConfigIsComplete(t *testing.T) {
	for name, args := range map[string][]string{
		"sqlite":   nil,
		"polylith": {"--database", "postgresql://d@localhost/d", "--kafka", "localhost:9092"},
		"docker":   {"--database", "postgresql://d@postgres/d", "--kafka", "kafka:9092", "--hosts", "--jaeger", "jaeger:6831"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := command(t, append([]string{"generate-config", "--server-name", "example.com", "--dir", dir}, args...)...); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "dendrite-config.yaml")
			if out, err := command(t, "check-config", "--config", file); err != nil {
				t.Fatal(err, out)
			}
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if c.Matrix.ServerName != "example.com" || len(c.Matrix.Registration.SharedSecret) < 20 {
				t.Errorf("server %s, shared secret %q", c.Matrix.ServerName, c.Matrix.Registration.SharedSecret)
			}
			if err := c.CheckPolylith(); (err == nil) != (args != nil) {
				t.Errorf("as a polylith: %v", err)
			}
			if name == "docker" && (c.Peers["syncapi"][0] != "http://syncapi:7873" || c.Listen.SyncAPI.Internal != "0.0.0.0:7873" || !c.Tracing.Enabled) {
				t.Errorf("peers %v, listen %v, tracing %v", c.Peers, c.Listen, c.Tracing)
			}
			if token, err := os.ReadFile(filepath.Join(dir, place.MetricsToken)); name == "docker" &&
				(err != nil || len(token) < 20 || string(token) != c.Metrics.Token) {
				t.Errorf("token for metrics %q, %v", token, err)
			}
			if _, err := command(t, append([]string{"generate-config", "--server-name", "other.com", "--dir", dir}, args...)...); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second configuration: %v", err)
			}
		})
	}
}

// A restore puts the database last. What it has put before, when it is broken off, is no new server.
func TestARestoreThatWasBrokenOffMakesNoNewServer(t *testing.T) {
	old, backup, restored := t.TempDir(), filepath.Join(t.TempDir(), "backup"), t.TempDir()
	must := func(args ...string) {
		t.Helper()
		if out, err := command(t, args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	must("generate-config", "--server-name", "test.example", "--dir", old)
	must("create-account", "--data-dir", old, "--username", "alice")
	if err := errors.Join(os.Mkdir(filepath.Join(old, "media"), 0o700),
		os.WriteFile(filepath.Join(old, "media", "picture"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	must("backup", "--data-dir", old, "--to", backup)
	inTheWay := filepath.Join(restored, "media")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "restore", "--from", backup, "--data-dir", restored); err == nil {
		t.Fatalf("media were restored to a file: %s", out)
	}
	if out, err := command(t, "create-account", "--data-dir", restored, "--username", "bob"); err == nil ||
		!strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("an account on half a server: %v %s", err, out)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	must("restore", "--from", backup, "--data-dir", restored)
	must("create-account", "--data-dir", restored, "--username", "bob")
}

func TestKeysAreForTheirOwnerAndStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	if _, err := command(t, "generate-keys", "--private-key", file); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	if _, err := command(t, "generate-keys", "--private-key", file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key: %v", err)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the key has changed: %v", err)
	}
	if _, err := place.ReadKey(file, "example.org"); err != nil {
		t.Error(err)
	}
}

func TestErrorsNameTheKeyAndTheFix(t *testing.T) {
	dir := t.TempDir()
	if _, err := command(t, "generate-config", "--server-name", "example.com", "--dir", dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "dendrite-config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"version: 1", "version: 0", []string{"version", "version: 1"}},
		{"server_name:", "sever_name:", []string{"matrix.sever_name", "did you mean matrix.server_name?"}},
		{"private_key: matrix_key.pem", "private_key: other.pem", []string{"matrix.private_key", "other.pem", "generate-keys"}},
		{"connection_string: file:dendrite.db", "connection_string: mysql://x", []string{"database.connection_string", "postgresql://"}},
		{"      certificate: \"\"\n      key: \"\"", "      certificate: c.pem\n      key: k.pem", []string{"listen.monolith.tls", "c.pem"}},
		{"client_extra: {}", "client_extra: {x: {}}", []string{"matrix.well_known.client_extra", "matrix.well_known.client: set"}},
		{"client_extra: {}", "client_extra: {m.homeserver: {}}", []string{"matrix.well_known.client_extra", "leave it out"}},
		{"client_extra: {}", "client_extra: {x: {1: 2}}", []string{"in quotes"}},
		{"client_extra: {}", "client_extra: {x: .inf}", []string{"matrix.well_known.client_extra", "JSON"}},
		{"  ca_files: []", "  ca_files: [ca.pem]", []string{"network.ca_files", "ca.pem"}},
	} {
		edited := strings.Replace(string(text), c.from, c.to, 1)
		if edited == string(text) {
			t.Fatalf("the configuration has no %q", c.from)
		}
		if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := command(t, "check-config", "--config", file)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", c.to, err, want)
			}
		}
	}
}

// A section that is there and sets nothing is as one that is left out.
func TestEmptySectionsOfAConfiguration(t *testing.T) {
	for _, matrix := range []string{
		"matrix: {server_name: a.test, private_key: k.pem, rate_limits: {disabled: true}}",
		"matrix: {server_name: a.test, private_key: k.pem, rate_limits: {}}",
		"matrix: {server_name: a.test, private_key: k.pem, rate_limits: }",
	} {
		file := filepath.Join(t.TempDir(), "dendrite-config.yaml")
		if err := os.WriteFile(file, []byte("version: 1\n"+matrix+"\ndatabase: {connection_string: 'file:a.db'}\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(file)
		if err != nil {
			t.Errorf("%s: %v", matrix, err)
		} else if c.Matrix.RateLimits.ByName["login"].Burst == 0 {
			t.Errorf("%s: logins have no limit", matrix)
		}
	}
}
