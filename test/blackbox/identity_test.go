package blackbox

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/deploy"
)

// tool runs the program with arguments, and returns what it said.
func tool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

// A server that has another name in its configuration than before would write what no other server believes. It does
// not start, nor does any tool; with its own name again all is as it was.
func TestAServerCannotBeRenamed(t *testing.T) {
	for _, kind := range []deploy.Kind{monolithSQLite, deploy.MonolithPostgres} {
		t.Run(string(kind), func(t *testing.T) {
			deploy.Chosen(t, kind)
			d := own(t, kind, nil)
			alice := d.user(t, "alice")
			room := alice.publicRoom()
			server := d.process(t, "monolith")
			if err := server.Stop(); err != nil {
				t.Fatal(err)
			}
			edit := func(from, to string) {
				t.Helper()
				text, err := os.ReadFile(d.file)
				if err == nil {
					err = os.WriteFile(d.file, []byte(strings.ReplaceAll(string(text), from, to)), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			edit("test.example", "two.example")
			for _, args := range [][]string{{"--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"},
				{"create-account", "--username", "x"}, {"consumers", "list"}, {"dead-letters", "list"},
				{"check-config"}} {
				if args[0] == "--listen" {
					// A server that starts in spite of all does not end by itself.
					args = append([]string{"timeout", "20", mustBinary(t)}, append(args, "--config", d.file)...)
				} else {
					args = append([]string{mustBinary(t)}, append(args, "--config", d.file)...)
				}
				out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
				if err == nil || !strings.Contains(string(out),
					"it belongs to test.example, and matrix.server_name is two.example") {
					t.Errorf("%v: %v %s", args[1:], err, out)
				}
			}
			if kind == monolithSQLite {
				noted, err := os.ReadFile(filepath.Join(filepath.Dir(d.file), "dendrite.db.lock"))
				if err != nil || string(noted) != "test.example\n" {
					t.Errorf("whose the database was is now noted as %q %v", noted, err)
				}
			}
			edit("two.example", "test.example")
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			alice.say(room, "still here")
		})
	}
}

func mustBinary(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What was signed with a key stays verifiable when the server signs with another one, and the first is current again
// when it returns.
func TestAnOldSigningKeyIsPublished(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	server := d.process(t, "monolith")
	keys := func() gjson.Result {
		t.Helper()
		a := d.anybody(t).call("GET", "/_matrix/key/v2/server", nil)
		if a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body.Raw)
		}
		return a.body
	}
	name := func(o gjson.Result) (id string) {
		o.ForEach(func(k, _ gjson.Result) bool { id = k.Str; return true })
		return id
	}
	restart := func(change func() error) gjson.Result {
		t.Helper()
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return keys()
	}
	first := keys()
	if first.Get("old_verify_keys").Raw != "{}" {
		t.Errorf("a new server has old keys: %s", first.Raw)
	}
	file := d.config.Matrix.PrivateKey
	second := restart(func() error {
		if err := os.Rename(file, file+".old"); err != nil {
			return err
		}
		out, err := tool(t, "generate-keys", "--private-key", file)
		t.Log(out)
		return err
	})
	oldID, newID := name(first.Get("verify_keys")), name(second.Get("verify_keys"))
	old := second.Get("old_verify_keys." + gjson.Escape(oldID))
	if oldID == newID || old.Get("key").Str != first.Get("verify_keys."+gjson.Escape(oldID)+".key").Str ||
		old.Get("expired_ts").Int() < 1e12 || len(second.Get("verify_keys").Map()) != 1 ||
		len(second.Get("old_verify_keys").Map()) != 1 {
		t.Fatalf("after another key: %s", second.Raw)
	}
	third := restart(func() error { return os.Rename(file+".old", file) })
	if name(third.Get("verify_keys")) != oldID || name(third.Get("old_verify_keys")) != newID ||
		len(third.Get("old_verify_keys").Map()) != 1 {
		t.Errorf("after the first key again: %s", third.Raw)
	}
}

// A database, a configuration or a key that has gone is not silently replaced by that of a new server.
func TestWhatIsMissingDoesNotMakeANewServer(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	d.user(t, "alice")
	server := d.process(t, "monolith")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(d.file)
	database := filepath.Join(dir, "dendrite.db")
	refused := func(what, want string, args ...string) {
		t.Helper()
		out, err := exec.Command("timeout", append([]string{"20", mustBinary(t)}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
	moved := func(file string, test func()) {
		t.Helper()
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		test()
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
	}
	listen := []string{"--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"}
	serve := append([]string{"--config", d.file}, listen...)
	moved(database, func() {
		refused("no database", "is gone", serve...)
		refused("no database for a tool", "is gone", "create-account", "--config", d.file, "--username", "x")
		if err := os.WriteFile(database, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused("a database of 0 bytes", "has 0 bytes", serve...)
		if err := os.WriteFile(database, []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused("another kind of file", "restore a backup", serve...)
	})
	moved(d.file, func() {
		refused("no configuration", "has a database", append([]string{"--data-dir", dir}, listen...)...)
	})
	moved(d.config.Matrix.PrivateKey, func() {
		refused("no key", "bring the server's key", serve...)
		moved(d.file, func() {
			refused("neither key nor configuration", "signing key", "generate-config", "--server-name", "test.example",
				"--dir", dir)
		})
	})
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A backup by copying the database file of a server that has ended has all that was acknowledged.
func TestTheFileOfAServerThatHasEndedIsWhole(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice := d.user(t, "alice")
	room := alice.publicRoom()
	for range 20 {
		alice.say(room, "kept")
	}
	server := d.process(t, "monolith")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(d.file), "dendrite.db")
	whole := func(when string) {
		t.Helper()
		if info, err := os.Stat(file + "-wal"); err == nil && info.Size() > 0 {
			t.Errorf("%s: %d bytes are beside the file", when, info.Size())
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file has mode %v (%v)", when, info.Mode(), err)
		}
	}
	whole("after the end")
	for _, args := range [][]string{{"create-account", "--username", "bob"}, {"consumers", "list"},
		{"dead-letters", "list"}} {
		if out, err := tool(t, append(args, "--config", d.file)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		whole("after " + args[0])
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(file + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(alice.history(room)); n != 20 {
		t.Errorf("the copy has %d of 20 messages", n)
	}
}
