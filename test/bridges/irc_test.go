package bridges

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/programs"
)

// ircServer starts a ngircd and returns its port.
func ircServer(t *testing.T, ctx context.Context) int {
	t.Helper()
	path, err := programs.Find("ngircd", "ngircd")
	if err != nil {
		path, err = programs.Find("/usr/sbin/ngircd", "ngircd")
	}
	test.Needs(t, err)
	port, err := parts.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "ngircd.conf")
	text := fmt.Sprintf("[Global]\nName = irc.test.example\nInfo = test\nListen = 127.0.0.1\nPorts = %s\n"+
		"[Limits]\nMaxConnectionsIP = 0\nMaxNickLength = 30\n[Options]\nIdent = no\nDNS = no\nPAM = no\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	begin(t, path, "-n", "-f", conf)
	number := 0
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	awaitListener(t, ctx, "127.0.0.1:"+port)
	return number
}

// ircUser is somebody on IRC.
type ircUser struct {
	t     *testing.T
	ctx   context.Context
	conn  net.Conn
	lines chan string
	seen  []string
}

func newIRCUser(t *testing.T, ctx context.Context, port int, nick string) *ircUser {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	u := &ircUser{t: t, ctx: ctx, conn: conn, lines: make(chan string, 1000)}
	var reading errgroup.Group
	reading.Go(func() error {
		defer close(u.lines)
		for scanner := bufio.NewScanner(conn); scanner.Scan(); {
			line := scanner.Text()
			if token, is := strings.CutPrefix(line, "PING "); is {
				u.send("PONG " + token)
				continue
			}
			u.lines <- line
		}
		return nil
	})
	t.Cleanup(func() {
		_ = conn.Close() // ends the reader
		_ = reading.Wait()
	})
	u.send("NICK " + nick)
	u.send("USER " + nick + " 0 * :" + nick)
	u.hears(" 001 ")
	return u
}

func (u *ircUser) send(line string) {
	if _, err := fmt.Fprintf(u.conn, "%s\r\n", line); err != nil {
		u.t.Errorf("irc: %v", err)
	}
}

// hears waits for a line with all these texts in it.
func (u *ircUser) hears(texts ...string) string {
	u.t.Helper()
	for {
		select {
		case line, open := <-u.lines:
			if !open {
				u.t.Fatalf("the IRC server has ended the connection; it said %q", u.seen)
			}
			u.seen = append(u.seen, line)
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				return line
			}
		case <-u.ctx.Done():
			u.t.Fatalf("nobody says %q on IRC; the last lines are %q", texts, u.seen[max(0, len(u.seen)-20):])
		}
	}
}

// containsWord tells whether a list of nicks has one, with or without a sign of its rank.
func containsWord(line, nick string) bool {
	for _, word := range strings.Fields(line) {
		if strings.Trim(word, ":@+%&~") == nick {
			return true
		}
	}
	return false
}
