package bridges

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
	"github.com/matrix-org/dendrite/test/programs"
)

// The kinds of deployments on which bridges are tried. The database makes no difference to a bridge.
var kinds = []deploy.Kind{deploy.MonolithSQLite, deploy.Polylith}

// on runs a story on each kind of deployment, with a registration of a service that the story starts.
func on(
	t *testing.T, registration func(address string) string,
	story func(t *testing.T, ctx context.Context, d *deploy.Deployment, file, address string),
) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel() // it waits for programs most of the time
			port, err := parts.FreePort()
			if err != nil {
				t.Fatal(err)
			}
			address := "127.0.0.1:" + port
			text := registration(address)
			d := deploy.Own(t, kind, deploy.Options{Registrations: map[string]string{"bridge": text}})
			file := filepath.Join(t.TempDir(), "registration.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			story(t, ctx, d, file, address)
		})
	}
}

// Somebody on Matrix and somebody on IRC talk through heisenbridge, a bouncer: both ways, with joins, changes of
// nicks and leaves.
func TestHeisenbridge(t *testing.T) {
	t.Parallel()
	python, err := programs.Venv("heisenbridge", filepath.Join("python", "heisenbridge.txt"))
	test.Needs(t, err)
	on(t, func(address string) string {
		return fmt.Sprintf("id: heisenbridge\nurl: http://%s\nas_token: %s\nhs_token: %s\nrate_limited: false\n"+
			"sender_localpart: heisenbridge\nnamespaces:\n  users:\n  - regex: '@irc_.*'\n    exclusive: true\n"+
			"  aliases: []\n  rooms: []\n",
			address, secret(), secret())
	}, func(t *testing.T, ctx context.Context, d *deploy.Deployment, file, address string) {
		irc := ircServer(t, ctx)
		alice := newPerson(t, ctx, d, "alice")
		begin(t, python, "-m", "heisenbridge", "-vv", "-c", file, "-l", "127.0.0.1", "-p", portOf(address),
			"-o", string(alice.UserID), d.URL())
		awaitListener(t, ctx, address)
		bot := id.NewUserID("heisenbridge", "test.example")

		control := alice.invited(bot)
		alice.says(control, "ADDNETWORK test")
		alice.hears(control, bot, "Network added")
		alice.says(control, fmt.Sprintf("ADDSERVER test 127.0.0.1 %d", irc))
		alice.hears(control, bot, "Server added")
		alice.says(control, "OPEN test")
		network := alice.invited(bot, control)
		alice.says(network, "NICK alice")
		alice.hears(network, bot, "Nickname set to alice")
		alice.says(network, "CONNECT")
		alice.hears(network, bot, "Welcome to the Internet Relay Network alice")

		alice.says(network, "JOIN #tea")
		tea := alice.invited(bot, control, network)
		// Whoever is there already gets a ghost when they talk, whoever joins gets one at once.
		bob := newIRCUser(t, ctx, irc, "bob")
		bob.send("JOIN #tea")
		bob.hears("JOIN", "#tea")
		ghost := id.NewUserID("irc_test_bob", "test.example")
		alice.sees(tea, ghost, event.MembershipJoin)

		// In order, both ways.
		for i := range 5 {
			alice.says(tea, fmt.Sprintf("from Matrix %d", i))
		}
		for i := range 5 {
			bob.hears("alice", "PRIVMSG #tea", fmt.Sprintf("from Matrix %d", i))
		}
		for i := range 5 {
			bob.send(fmt.Sprintf("PRIVMSG #tea :from IRC %d", i))
		}
		alice.hears(tea, ghost, "from IRC 4")

		bob.send("NICK robert")
		renamed := id.NewUserID("irc_test_robert", "test.example")
		alice.sees(tea, renamed, event.MembershipJoin)
		alice.sees(tea, ghost, event.MembershipLeave)
		bob.send("PRIVMSG #tea :as robert")
		alice.hears(tea, renamed, "as robert")

		// The server ends and comes back in the middle: what is said meanwhile and after arrives once.
		for _, process := range d.Processes() {
			if err := process.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
		alice.says(tea, "after the restart")
		bob.hears("alice", "PRIVMSG #tea", "after the restart")
		bob.send("PRIVMSG #tea :heard")
		alice.hears(tea, renamed, "heard")

		bob.send("PART #tea :tired")
		alice.sees(tea, renamed, event.MembershipLeave)
		if _, err := alice.LeaveRoom(ctx, tea); err != nil {
			t.Fatal(err)
		}
		carol := newIRCUser(t, ctx, irc, "carol")
		carol.send("JOIN #tea")
		for {
			carol.send("NAMES #tea")
			if names := carol.hears(" 353 ", "#tea"); !containsWord(names, "alice") {
				break
			}
		}
	})
}
