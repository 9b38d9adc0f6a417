package clients

import (
	"crypto/rand"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/test/deploy"
)

var shared = &deploy.Shared{Options: deploy.Options{Replicas: config.Components()}}

func TestMain(m *testing.M) { deploy.Main(m, shared) }

// within is how long a client may take for the whole story.
const within = 90 * time.Second

// person is an account, and the listener that its clients talk to.
type person struct {
	URL      string `json:"url"`
	UserID   string `json:"user_id"`
	Password string `json:"password"`
}

// cast is who plays the story, and how much they say.
type cast struct {
	Alice person `json:"alice"`
	Bob   person `json:"bob"`
	// Messages is how many each of them sends.
	Messages int `json:"messages"`
}

// story is what a client tells of it. Alice and bob log in with their passwords and sync from then on. She makes a private room called
// Tea and invites him; he joins when his sync has told him. Both send their messages at the same time, and when she has seen all of them
// she types, and sends one more. He reads that one. Then he logs in on a second device, whose first sync has the newest 5 events, and
// pages back 8 by 8 from there to the beginning.
type story struct {
	Room     string `json:"room"`
	RoomName string `json:"room_name"` // as bob's client has it
	Inviter  string `json:"inviter"`   // as bob's sync says
	// Sent are the event ids that each got for what they sent, and Received those that each got from sync, both in order.
	Sent     map[string][]string `json:"sent"`
	Received map[string][]string `json:"received"`
	Typist   string              `json:"typist"` // whom bob saw typing
	// Read is the event that bob read, as alice's sync says.
	Read  string   `json:"read"`
	Paged []string `json:"paged"` // what the second device has of the room's messages, oldest first
	Pages int      `json:"pages"` // how many pages it asked for
}

// tell runs the story with a client on each kind of deployment.
func tell(t *testing.T, client func(t *testing.T, c cast) story) {
	t.Helper()
	shared.Run(t, func(t *testing.T, d *deploy.Deployment) {
		c := cast{Alice: account(t, d, "alice"), Bob: account(t, d, "bob"), Messages: 12}
		client(t, c).check(t, c)
	})
}

// account makes one as an operator does, while the server runs.
func account(t *testing.T, d *deploy.Deployment, name string) person {
	t.Helper()
	path, err := deploy.Binary()
	if err != nil {
		t.Fatal(err)
	}
	name += "-" + strings.ToLower(rand.Text()[:8])
	p := person{URL: d.URL(), UserID: "@" + name + ":" + string(d.Config.Matrix.ServerName), Password: rand.Text()}
	cmd := exec.CommandContext(t.Context(), path, "create-account", "--config", d.File, "--username", name, "--password-stdin")
	cmd.Stdin = strings.NewReader(p.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return p
}

func (s story) check(t *testing.T, c cast) {
	t.Helper()
	equal(t, "the room's name", s.RoomName, "Tea")
	equal(t, "the inviter", s.Inviter, c.Alice.UserID)
	equal(t, "the typist", s.Typist, c.Alice.UserID)
	sent := slices.Concat(s.Sent["alice"], s.Sent["bob"])
	equal(t, "the number of messages", len(sent), 2*c.Messages+1)
	equal(t, "the event that was read", s.Read, s.Sent["alice"][len(s.Sent["alice"])-1])
	seen := s.Received["alice"]
	equal(t, "what bob got from sync, beside what alice got", fmt.Sprint(s.Received["bob"]), fmt.Sprint(seen))
	equal(t, "what the second device has, beside what sync brought", fmt.Sprint(s.Paged), fmt.Sprint(seen))
	for who, own := range s.Sent {
		others := func(event string) bool { return !slices.Contains(own, event) }
		equal(t, who+"'s messages in sync", fmt.Sprint(slices.DeleteFunc(slices.Clone(seen), others)), fmt.Sprint(own))
	}
	equal(t, "the number of messages in sync", len(seen), len(sent))
	if s.Pages < 3 {
		t.Errorf("the second device needed only %d pages", s.Pages)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
