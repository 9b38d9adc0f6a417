package registration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
)

const irc = `
id: "IRC Bridge"
url: "http://127.0.0.1:1234/irc/"
as_token: as
hs_token: hs
sender_localpart: "_irc_bot"
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
something.of.theirs: {a: 1}
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
    - exclusive: false
      regex: "@(?!admin)[a-z]+:test"
  aliases:
    - {exclusive: false, regex: "#_irc_bridge_.*"}
  rooms: []
`

func ids(list []*Registration) string {
	var out []string
	for _, r := range list {
		out = append(out, r.ID)
	}
	return strings.Join(out, ",")
}

func TestAFileAsOthersWriteIt(t *testing.T) {
	r, err := Parse([]byte(irc), "irc.yaml", "test")
	if err != nil {
		t.Fatal(err)
	}
	if r.URL != "http://127.0.0.1:1234/irc" || r.Sender != "@_irc_bot:test" || r.RateLimited || !r.Ephemeral || len(r.Users) != 2 {
		t.Errorf("read as %+v", r)
	}
	null, err := Parse([]byte(strings.Replace(irc, `"http://127.0.0.1:1234/irc/"`, "null", 1)), "irc.yaml", "test")
	if err != nil || null.URL != "" {
		t.Errorf("url: null is read as %+v, %v", null, err)
	}
}

func TestFaultsNameFileAndKey(t *testing.T) {
	for fault, want := range map[string][2]string{
		"sender_localpart: \"_irc_bot\"": {"", "sender_localpart"},
		"\"@_irc_bridge_.*\"":            {"\"@_irc_(\"", "namespaces.users[0].regex"},
		"http://":                        {"ftp://", "url"},
		"as_token: as\nhs_token: hs":     {"as_token: hs\nhs_token: hs", "hs_token"},
		"id: \"IRC Bridge\"":             {"id: ''", "id"},
		"as_token: as":                   {"as_token: |\n  as", "as_token"},
		"hs_token: hs":                   {"hs_token: \"h s\"", "hs_token"},
		"\"_irc_bot\"":                   {"\"@irc:test\"", "sender_localpart"},
	} {
		_, err := Parse([]byte(strings.Replace(irc, fault, want[0], 1)), "irc.yaml", "test")
		if err == nil || !strings.HasPrefix(err.Error(), "irc.yaml: "+want[1]+": ") {
			t.Errorf("%q in place of %q: %v, want irc.yaml: %s: …", want[0], fault, err, want[1])
		}
	}
}

func TestTwoServicesMayNotShareWhatNamesThem(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", irc)
	other := strings.NewReplacer("IRC Bridge", "other", "as_token: as", "as_token: as2", `"_irc_bot"`, "bot2").Replace(irc)
	for key, pair := range map[string][2]string{"id": {"id: \"other\"", "id: \"IRC Bridge\""}, "as_token": {"as2", "as"}, "sender_localpart": {"bot2", "_irc_bot"}} {
		write("b.yaml", strings.Replace(other, pair[0], pair[1], 1))
		if _, err := Read(config.ApplicationServices{ConfigDir: dir}, "test"); err == nil || !strings.Contains(err.Error(), "b.yaml: "+key+": ") {
			t.Errorf("two with the same %s: %v", key, err)
		}
	}
	write("b.yaml", other)
	set, err := Read(config.ApplicationServices{ConfigDir: dir}, "test")
	if err != nil || ids(set.All()) != "IRC Bridge,other" {
		t.Fatalf("%v, %v", set, err)
	}
	if set.ByToken("as2") != set.ByID("other") || set.ByToken("") != nil || set.ByToken("as3") != nil {
		t.Error("tokens lead to the wrong service")
	}
}

func TestWhoseAUserIs(t *testing.T) {
	r, err := Parse([]byte(irc), "irc.yaml", "test")
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewSet("test", []*Registration{r})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[id.UserID][2]string{
		"@_irc_bridge_a:test":  {"IRC Bridge", "IRC Bridge"},
		"@_irc_bridge_a:other": {"", ""},
		"@_irc_bot:test":       {"IRC Bridge", "IRC Bridge"},
		"@_irc_bot:test2":      {"", ""},
		"@bob:test":            {"IRC Bridge", ""},
		"@admin:test":          {"", ""},
		"@x_irc_bridge_a:test": {"", ""},
	} {
		for range 2 { // the second is from the cache
			if got := [2]string{ids(set.Users(user)), ids(set.ExclusiveUsers(user))}; got != want {
				t.Errorf("%s is of %v, want %v", user, got, want)
			}
		}
	}
	if !set.ReservedUser("@_irc_bridge_a:test", nil) || set.ReservedUser("@_irc_bridge_a:test", r) || set.ReservedUser("@bob:test", nil) {
		t.Error("who may have a user of an exclusive namespace is wrong")
	}
	if ids(set.Aliases("#_irc_bridge_x:test")) != "IRC Bridge" || set.ReservedAlias("#_irc_bridge_x:test", nil) {
		t.Error("an alias of a namespace that others may use is wrong")
	}
}

func TestAHolderTellsOfAChange(t *testing.T) {
	var nobody *Holder
	if !nobody.Load().Empty() || nobody.Changed() != nil || nobody.Load().Users("@a:test") != nil {
		t.Error("a nil Holder has something")
	}
	h := NewHolder(nobody.Load())
	changed := h.Changed()
	next, err := NewSet("test", []*Registration{{ID: "a", ASToken: "t", Sender: "@a:test"}})
	if err != nil {
		t.Fatal(err)
	}
	h.Replace(next)
	<-changed
	if h.Load() != next {
		t.Error("another Set is in force")
	}
}

// BenchmarkMatch is what a user costs whose answer is not cached, with 200 services of 50 expressions.
func BenchmarkMatch(b *testing.B) {
	var all []*Registration
	for i := range 200 {
		r := &Registration{ID: fmt.Sprint(i), ASToken: fmt.Sprint(i), Sender: id.UserID(fmt.Sprintf("@bot%d:test", i))}
		for j := range 50 {
			r.Users = append(r.Users, Namespace{Regex: fmt.Sprintf("@_bridge%d_%d_.*:test", i, j), Exclusive: true})
		}
		all = append(all, r)
	}
	set, err := NewSet("test", all)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if len(set.Users(id.UserID(fmt.Sprintf("@_bridge%d_%d_%d:test", i%200, i%50, i)))) != 1 {
			b.Fatal("no service")
		}
	}
}

// A process that had no time to match an id must not take it for nobody's for good: its events would reach no bridge.
func TestAnExpressionThatTookTooLongIsAskedAgain(t *testing.T) {
	now, asked := time.Now(), 0
	r := &Registration{ID: "slow"}
	m := newMatcher()
	m.now = func() time.Time { return now }
	m.lengths, m.byPrefix[""] = []int{0}, []expression{{of: r, matches: func(string) (is, sure bool) {
		asked++
		return asked > 1, asked > 1
	}}}
	for i, want := range []struct{ asked, services int }{{1, 0}, {1, 0}, {2, 1}, {2, 1}} {
		if i == 2 {
			now = now.Add(keepUnsure)
		}
		if got := len(m.match("@a:test").is); got != want.services || asked != want.asked {
			t.Errorf("call %d: %d services after %d questions, want %d after %d", i, got, asked, want.services, want.asked)
		}
	}

	matches, err := compile("(?=x)(x+x+)+y")
	if err != nil {
		t.Fatal(err)
	}
	if is, sure := matches(strings.Repeat("x", 200)); is || sure {
		t.Errorf("an expression without end: matches %t, sure %t", is, sure)
	}
}
