package blackbox

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestAProcessEndsInOrderWithLongPollsOpen(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice := d.user(t, "alice")
	since := alice.must("GET", at("sync"), nil).Get("next_batch").Str
	const polls = 20
	answers := make(chan answer, polls)
	for range polls {
		go func() {
			c := *alice
			answers <- c.call("GET", at("sync")+"?timeout=60000&since="+since, nil)
		}()
	}
	for d.served(t, "monolith") < polls {
	}
	began := time.Now()
	server := d.process(t, "monolith")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("ended after %v", took)
	}
	if status := server.Status(); status != 0 {
		t.Errorf("ended with status %d", status)
	}
	for range polls {
		if a := <-answers; a.status != http.StatusOK || a.body.Get("next_batch").Str == "" {
			t.Errorf("a long poll got %d %s", a.status, a.body.Raw)
		}
	}
}

// internal asks the internal listener of a process, with a bearer token if there is one.
func (d *deployment) internal(t *testing.T, process, path, token string) *http.Response {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+d.config.Listen.For(process).Internal+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// served is how many public requests a process is working on.
func (d *deployment) served(t *testing.T, process string) int {
	t.Helper()
	answer := d.internal(t, process, "/debug/pprof/goroutine?debug=2", d.config.InternalSecret)
	defer answer.Body.Close()
	stacks, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(stacks, []byte("httputil.(*Router).ServeHTTP("))
}

func TestAccountsAreMadeWhileTheServerRuns(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		c := d.anybody(t)
		c.localpart, c.password = "made-"+strings.ToLower(rand.Text()[:8]), "a long password"
		cmd := exec.Command(path, "create-account", "--config", d.file, "--username", c.localpart, "--password-stdin")
		cmd.Stdin = strings.NewReader(c.password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if made := c.login(); made.userID != "@"+c.localpart+":test.example" {
			t.Errorf("logged in as %s", made.userID)
		}
		cmd = exec.Command(path, "create-account", "--config", d.file, "--username", c.localpart)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("the same account again: %s", out)
		}
	})
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	running := own(t, monolithSQLite, nil)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command(path, args...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%v: %v, and %q does not say %q", args, err, out, want)
		}
	}
	public := running.config.Listen.Monolith.Public
	fails("listen.monolith.public: "+public+" is taken", "--data-dir", t.TempDir()+"/new", "--listen", public)
	fails("another server runs on this database", "--config", running.file, "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0")
	if err := os.Remove(running.config.Matrix.PrivateKey); err != nil {
		t.Fatal(err)
	}
	fails("matrix.private_key", "check-config", "--config", running.file)
	fails("unknown flag: --nonsense", "--nonsense")
}

func TestADatabaseThatCannotBeReachedIsWaitedFor(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Nobody listens on port 1.
	args := []string{"generate-config", "--server-name", "test.example", "--dir", dir, "--database", "postgresql://x@127.0.0.1:1/x"}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(path, "--config", dir+"/"+"dendrite-config.yaml", "--listen", "127.0.0.1:0")
	said := &waiting{want: "does database.connection_string name its host and port?", heard: make(chan struct{})}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-said.heard
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("asked to end while it waits: %v", err)
	}
}

// waiting is the output of a process that will say something.
type waiting struct {
	want  string
	all   []byte
	heard chan struct{}
}

func (w *waiting) Write(b []byte) (int, error) {
	before := bytes.Contains(w.all, []byte(w.want))
	w.all = append(w.all, b...)
	if !before && bytes.Contains(w.all, []byte(w.want)) {
		close(w.heard)
	}
	return len(b), nil
}
