package bridges

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
	"github.com/matrix-org/dendrite/test/players"
	"github.com/matrix-org/dendrite/test/programs"
)

// echoRegistration is that of bridges whose users have devices, with lines for what one wants besides.
func echoRegistration(more string) func(address string) string {
	return func(address string) string {
		return fmt.Sprintf("id: echo\nurl: http://%s\nas_token: %s\nhs_token: %s\nrate_limited: false\n"+
			"sender_localpart: _x_bot\nreceive_ephemeral: true\n"+
			"de.sorunome.msc2409.push_ephemeral: true\norg.matrix.msc3202: true\n%s"+
			"namespaces:\n  users:\n  - regex: '@_x_.*'\n    exclusive: true\n  aliases: []\n  rooms: []\n",
			address, secret(), secret(), more)
	}
}

// modes are the ways in which bridges of mautrix get messages to their devices. With transactions they make a device as
// the server lets them (MSC4190), else they log in and sync.
var modes = map[string]string{"transactions": "io.element.msc4190: true\n", "sync": ""}

func TestMautrixPython(t *testing.T) {
	t.Parallel()
	python, err := programs.Venv("mautrix", filepath.Join("python", "mautrix.txt"))
	test.Needs(t, err)
	mautrixBridges(t, python, filepath.Join("python", "bot.py"))
}

func TestMautrixGo(t *testing.T) {
	t.Parallel()
	mautrixBridges(t, players.Build(t, "github.com/matrix-org/dendrite/test/bridges/goolm"))
}

func mautrixBridges(t *testing.T, command ...string) {
	for mode, lines := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			on(t, echoRegistration(lines), func(t *testing.T, ctx context.Context, d *deploy.Deployment, file, address string) {
				folder := t.TempDir()
				s := encryptedStory{speaker: id.NewUserID("_x_ghost", "test.example"), start: func() *process {
					return begin(t, slices.Concat(command, []string{d.URL(), "test.example", file, portOf(address), folder, mode})...)
				}}
				s.tell(t, ctx, d)
			})
		})
	}
}

// encryptedStory is of a bridge that repeats what it hears as a user of its own.
type encryptedStory struct {
	start   func() *process
	speaker id.UserID
	forgets bool // its keys, when it ends
}

// tell has somebody talk with the bridge in an encrypted room, while the server and the bridge end and come back.
func (s encryptedStory) tell(t *testing.T, ctx context.Context, d *deploy.Deployment) {
	t.Helper()
	bot := id.NewUserID("_x_bot", "test.example")
	bridge := s.start()
	alice := newPerson(t, ctx, d, "alice")
	client := players.Hire(t, players.Goolm(t))
	do := func(command string, arguments players.Object) {
		t.Helper()
		answer := struct {
			Encrypted bool `json:"encrypted"`
		}{}
		if err := client.Call(ctx, "alice", command, arguments, &answer); err != nil {
			t.Fatal(err)
		}
		if command == "hear" && !answer.Encrypted {
			t.Errorf("the bridge says %q in clear", arguments["text"])
		}
	}
	do("login", players.Object{"url": d.URL(), "user_id": alice.UserID, "password": alice.password, "timeline": 50})
	bridge.says(t, ctx, "the bridge has started")

	encryption := &event.Event{Type: event.StateEncryption,
		Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}}}
	room, err := alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{bot},
		InitialState: []*event.Event{encryption}})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []id.UserID{bot, s.speaker} {
		alice.sees(room.RoomID, user, event.MembershipJoin)
	}
	do("joined", players.Object{"room": room.RoomID, "count": 3})
	talk := func(text string) {
		t.Helper()
		do("say", players.Object{"room": room.RoomID, "text": text})
		do("hear", players.Object{"room": room.RoomID, "user": s.speaker, "text": "echo: " + text})
	}
	talk("hello")
	talk("again")

	for _, process := range d.Processes() {
		if err := process.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	talk("after the restart")

	if !s.forgets {
		// The bridge finds its device again, and what was said while it was away.
		bridge.end()
		do("say", players.Object{"room": room.RoomID, "text": "while it was away"})
		bridge = s.start()
		do("hear", players.Object{"room": room.RoomID, "user": s.speaker, "text": "echo: while it was away"})
		bridge.says(t, ctx, "the bridge has started")
		talk("after its restart")
	}

	// Another device of hers: the bridge learns of it, and encrypts for it too.
	second := players.Object{"url": d.URL(), "user_id": alice.UserID, "password": alice.password, "timeline": 50}
	if err := client.Call(ctx, "alice2", "login", second, &struct{}{}); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		text := fmt.Sprint("to both ", n)
		talk(text)
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		heard := players.Object{"room": room.RoomID, "user": s.speaker, "text": "echo: " + text}
		err := client.Call(soon, "alice2", "hear", heard, &struct{}{})
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil || n == 3 {
			t.Fatalf("the bridge does not encrypt for another device: %v", err)
		}
	}
}
