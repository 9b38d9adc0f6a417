package blackbox

import (
	"bufio"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v2"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

// installCommands are the command lines that INSTALL.md has in the section on backups: the one that makes a backup, and
// the one that restores it. The paths in them are those of this test.
func installCommands(t *testing.T, d *deployment, backup string) (save, restore []string) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "INSTALL.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	var commands [][]string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "## ") {
			inside = line == "## Backup"
		}
		if command, is := strings.CutPrefix(line, "    "); is && inside {
			command = strings.ReplaceAll(command, "/etc/dendrite/dendrite-config.yaml", d.file)
			command = strings.ReplaceAll(command, "/var/backups/dendrite/today", backup)
			words := strings.Fields(command)
			if words[0] != "./dendrite" {
				t.Fatalf("INSTALL.md tells to run %q", command)
			}
			commands = append(commands, append([]string{mustBinary(t)}, words[1:]...))
		}
	}
	if len(commands) != 2 || commands[0][1] != "backup" || commands[1][1] != "restore" {
		t.Fatalf("INSTALL.md tells to run %v", commands)
	}
	return commands[0], commands[1]
}

// What INSTALL.md says of backups is true: one that is made while others write has all that was acknowledged before it
// began, with the key, the configuration and the media, and a server that lost everything goes on from it, also for
// clients that have newer sync tokens.
func TestABackupHasEverything(t *testing.T) {
	t.Parallel()
	for _, kind := range deploy.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			deploy.Chosen(t, kind)
			databases := 1
			var edit func(*config.Config)
			if kind == polylith { // whose components may have databases of their own
				databases = 2
				second := test.Postgres(t)
				edit = func(c *config.Config) { c.Database.ConnectionStrings = map[string]string{"syncapi": second} }
			}
			d := own(t, kind, edit)
			backup := filepath.Join(t.TempDir(), "backups", "today")
			save, restore := installCommands(t, d, backup)
			run := func(command []string) string {
				t.Helper()
				out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %v: %s", command[1:], err, out)
				}
				return string(out)
			}
			refused := func(want string, command []string) {
				t.Helper()
				if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err == nil ||
					!strings.Contains(string(out), want) {
					t.Errorf("%v: %v: %s", command[1:], err, out)
				}
			}
			media := filepath.Join(d.config.Media.BasePath, "aa", "picture")
			writeAll(t, media, "media")

			l := newLoad(t, d, test.Seed(t))
			l.start()
			t.Cleanup(l.stop)
			l.until(time.Now().Add(recoverWithin), "there is something to save", func() bool {
				return l.acknowledged() > 300
			})
			// By writer: all up to this one were acknowledged before the backup.
			kept := make(map[string]acknowledgement)
			for _, w := range l.writers {
				kept[w.name] = *w.newest.Load()
			}
			t.Log(run(save))
			l.finish()
			l.stop()
			refused("is not empty", save)
			modes(t, backup)

			signed := keyID(t, d)
			for _, name := range d.processNames() {
				if err := d.process(t, name).Stop(); err != nil {
					t.Fatal(err)
				}
			}
			lose(t, d)
			damage(t, backup, databases, restore, refused)
			said := run(restore)
			if kind == polylith {
				if !strings.Contains(said, "delete the topics of Kafka") {
					t.Errorf("nothing is said of Kafka: %s", said)
				}
				if err := parts.DropTopics(d.config.Kafka.Addresses[0], d.config.Kafka.TopicPrefix); err != nil {
					t.Fatal(err)
				}
			}
			refused("", restore) // there is something now
			var all errgroup.Group
			for _, name := range d.processNames() {
				server := d.process(t, name)
				all.Go(func() error { return server.Start(context.Background()) })
				t.Cleanup(func() { _ = server.Stop() }) // before its database goes; its end is judged after that
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}

			if now := keyID(t, d); now != signed {
				t.Errorf("the key is %s, and was %s", now, signed)
			}
			if text, err := os.ReadFile(media); err != nil || string(text) != "media" {
				t.Errorf("the media: %q %v", text, err)
			}
			has := make(map[string]bool)
			for _, room := range l.rooms {
				for _, m := range l.writers[0].history(room) {
					has[m.event] = true
				}
			}
			checked := 0
			for _, w := range l.writers {
				for _, a := range w.acknowledged {
					checked++
					if !has[a.event] {
						t.Errorf("%q was acknowledged before the backup, and is not there", a.text)
					}
					if a == kept[w.name] {
						break
					}
				}
			}
			t.Logf("%d events were acknowledged before the backup, and %d are there", checked, len(has))
			// Tokens of clients are newer than the backup.
			for _, r := range l.readers {
				event := l.writers[1].say(l.rooms[0], "news for "+r.userID)
				timeline := roomIn(r.sync(r.since), "join", l.rooms[0]).Get("timeline.events")
				if got := timeline.Get("#.event_id").String(); !strings.Contains(got, event) {
					t.Errorf("a client that was ahead of the backup does not get what is said after it: %s", got)
				}
			}
			if kind == monolithSQLite {
				overwrite := append(restore, "--overwrite")
				refused("another server runs on this database", overwrite)
				server := d.process(t, "monolith")
				if err := server.Stop(); err != nil {
					t.Fatal(err)
				}
				run(overwrite)
				if err := server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, m := range l.writers[0].history(l.rooms[0]) {
					if strings.HasPrefix(m.text, "news for") {
						t.Errorf("%q was said after the backup, and is there after a restore over it", m.text)
					}
				}
			}
		})
	}
}

func writeAll(t *testing.T, file, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keyID is with what the server signs.
func keyID(t *testing.T, d *deployment) string {
	t.Helper()
	return d.anybody(t).must("GET", "/_matrix/key/v2/server", nil).Get("verify_keys").Raw
}

// modes makes sure that a backup is for its owner.
func modes(t *testing.T, backup string) {
	t.Helper()
	err := filepath.WalkDir(backup, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(backup + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left beside the backup: %v %v", left, err)
	}
}

// lose destroys what a server has; on Postgres its configuration then names a new database, as INSTALL.md says.
func lose(t *testing.T, d *deployment) {
	t.Helper()
	remove := func(path string) {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	remove(d.config.Matrix.PrivateKey)
	remove(d.config.Media.BasePath)
	if d.kind == monolithSQLite {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			remove(filepath.Join(filepath.Dir(d.file), "dendrite.db"+suffix))
		}
		remove(d.file)
		return
	}
	d.config.Database.ConnectionString = test.Postgres(t)
	for name := range d.config.Database.ConnectionStrings {
		d.config.Database.ConnectionStrings[name] = test.Postgres(t)
	}
	text, err := yaml.Marshal(d.config)
	if err == nil {
		err = os.WriteFile(d.file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// damage makes sure that a backup of which something has changed is refused.
func damage(t *testing.T, backup string, databases int, restore []string, refused func(string, []string)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(backup, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		ServerName string `json:"server_name"`
		Databases  []struct{ File string }
		Files      []struct {
			Path   string
			Size   int64
			SHA256 string
		}
	}
	if err := json.Unmarshal(text, &manifest); err != nil || manifest.ServerName != "test.example" ||
		len(manifest.Databases) != databases {
		t.Fatalf("the manifest: %v %s", err, text)
	}
	file := filepath.Join(backup, manifest.Databases[0].File)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	writeAll(t, file, string(data))
	refused("has changed since it was made", restore)
	data[len(data)/2] ^= 1
	writeAll(t, file, string(data))
}
