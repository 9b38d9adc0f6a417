package blackbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

// disk mounts a disk of a size of its own. It takes root.
func disk(t *testing.T, dir, size string) (resize func(size string)) {
	t.Helper()
	mount := func(flags uintptr, size string) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", flags|syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "size="+size)
	}
	if err := mount(0, size); err != nil {
		t.Skipf("a disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return func(size string) {
		t.Helper()
		if err := mount(syscall.MS_REMOUNT, size); err != nil {
			t.Fatal(err)
		}
	}
}

// A server whose disk is full says so with an answer that tells to try again, goes on answering what it has, keeps what it has acknowledged
// and goes on where it was as soon as there is room.
func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	deploy.Chosen(t, monolithSQLite)
	dir := t.TempDir()
	resize := disk(t, dir, "12m")
	d := own(t, monolithSQLite, func(c *config.Config) { c.Database.ConnectionString = "file:" + dir + "/dendrite.db" })
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	room := alice.publicRoom()
	bob.join(room)
	since := bob.now()

	var said []string
	say := func(transaction int, size int) answer {
		text := fmt.Sprintf("%d %s", transaction, strings.Repeat("x", size))
		a := alice.call("PUT", at("rooms", room, "send", "m.room.message", fmt.Sprint("disk-", transaction)), object{"msgtype": "m.text", "body": text})
		if a.status == http.StatusOK {
			said = append(said, text)
		}
		return a
	}
	refused := 0
	for a := say(refused, 30_000); a.status == http.StatusOK; a = say(refused, 30_000) {
		refused++
	}
	for size := 30_000; size > 0; size /= 10 {
		for a := say(refused, size); ; a = say(refused, size) {
			if a.status == http.StatusOK {
				refused++
				continue
			}
			if a.status != http.StatusServiceUnavailable || a.errcode() != "M_UNKNOWN" || a.body.Get("error").Str == "" {
				t.Fatalf("a message to a full disk: %d %s", a.status, a.body.Raw)
			}
			break
		}
	}
	holds := func(when string) {
		t.Helper()
		var history []string
		for _, m := range bob.history(room) {
			history = append(history, m.text)
		}
		if !slices.Equal(history, said) {
			t.Fatalf("%s: %d messages in /messages of %d", when, len(history), len(said))
		}
	}
	holds("full")
	healthy := parts.Healthy("http://" + d.config.Listen.Monolith.Internal)
	if err := healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "make room on the disk") {
		t.Errorf("health with a full disk: %v", err)
	}
	if a := bob.call("GET", syncPath(since), nil); a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
		t.Errorf("a sync with a full disk: %d %s", a.status, a.body.Raw)
	}

	resize("48m")
	if err := healthy(t.Context()); err != nil {
		t.Errorf("health with room again: %v", err)
	}
	for range 20 {
		if a := say(refused, 1000); a.status != http.StatusOK {
			t.Fatalf("with room again: %d %s", a.status, a.body.Raw)
		}
		refused++
	}
	holds("with room again")
	server := d.process(t, "monolith")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	holds("after a kill")
	var got []string
	for {
		answer := bob.sync(since)
		since = answer.Get("next_batch").Str
		timeline := roomIn(answer, "join", room).Get("timeline")
		if !timeline.Exists() {
			break
		}
		got = append(got, bodies(timeline.Get("events"))...)
	}
	if len(got) == 0 || !slices.Equal(got, said[len(said)-len(got):]) {
		t.Errorf("sync brought %d messages at the end of %d", len(got), len(said))
	}
}
