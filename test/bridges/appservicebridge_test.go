package bridges

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/matrix-org/dendrite/test/deploy"
)

// A bridge made with matrix-appservice-bridge starts with its own check, makes the rooms and users that it is asked
// for, answers, and shows its network.
func TestMatrixAppserviceBridge(t *testing.T) {
	t.Parallel()
	command := nodeBridge(t, "bridge.mjs")
	on(t, func(address string) string {
		return fmt.Sprintf("id: bridge\nurl: http://%s\nas_token: %s\nhs_token: %s\nrate_limited: false\n"+
			"sender_localpart: _x_bot\nprotocols: [gopher]\nnamespaces:\n  users:\n  - regex: '@_x_.*'\n    exclusive: true\n"+
			"  aliases:\n  - regex: '#_x_.*'\n    exclusive: true\n  rooms: []\n", address, secret(), secret())
	}, func(t *testing.T, ctx context.Context, d *deploy.Deployment, file, address string) {
		bridge := begin(t, append(command, d.URL(), "test.example", file, portOf(address))...)
		bridge.says(t, ctx, "ping ")
		bot := id.NewUserID("_x_bot", "test.example")
		alice := newPerson(t, ctx, d, "alice")

		// A room that the bridge makes when somebody joins by its alias.
		joined, err := alice.JoinRoom(ctx, "#_x_burrow:test.example", nil)
		if err != nil {
			t.Fatal(err)
		}
		alice.says(joined.RoomID, "hello")
		alice.hears(joined.RoomID, bot, "echo: hello")
		if _, err := alice.ResolveAlias(ctx, "#_x_nothing:test.example"); !errors.Is(err, mautrix.MNotFound) {
			t.Errorf("an alias that the bridge does not make: %v, want M_NOT_FOUND", err)
		}

		// A user that it makes when somebody asks for the profile.
		ghost := id.NewUserID("_x_ghost_a", "test.example")
		profile, err := alice.GetProfile(ctx, ghost)
		if err != nil || profile.DisplayName != "Ghost _x_ghost_a" {
			t.Errorf("the profile of a ghost: %+v, %v", profile, err)
		}
		direct, err := alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{
			Preset: "trusted_private_chat", Invite: []id.UserID{ghost, bot}})
		if err != nil {
			t.Fatal(err)
		}
		alice.sees(direct.RoomID, ghost, event.MembershipJoin)

		for path, want := range map[string]string{
			"protocols":                                  `"network_id":"gopher"`,
			"location/gopher?hole=deep":                  `"alias":"#_x_deep:test.example"`,
			"user/gopher?name=ann":                       `"userid":"@_x_ann:test.example"`,
			"location?alias=%23_x_burrow%3Atest.example": `"hole":"parsed"`,
			"user?userid=%40_x_ghost_a%3Atest.example":   `"name":"parsed"`,
		} {
			body, err := alice.MakeRequest(ctx, "GET", d.URL()+"/_matrix/client/v3/thirdparty/"+path, nil, nil)
			if err != nil || !strings.Contains(string(body), want) {
				t.Errorf("GET thirdparty/%s: %s, %v, want %s", path, body, err, want)
			}
		}

		for _, process := range d.Processes() {
			if err := process.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
		alice.says(joined.RoomID, "after the restart")
		alice.hears(joined.RoomID, bot, "echo: after the restart")
	})
}
