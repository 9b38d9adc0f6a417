package clients

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/test/deploy"
)

// A bridge of mautrix encrypts as a device of its own user, and gets all that it needs for that in its transactions. It
// talks with a client over restarts of all components.
func TestAnEncryptedBridge(t *testing.T) {
	for _, kind := range []deploy.Kind{deploy.MonolithSQLite, deploy.Polylith} {
		t.Run(string(kind), func(t *testing.T) {
			d := deploy.Own(t, kind, deploy.Options{})
			s := stage{
				account: func(name string) person { return account(t, d, name) },
				restart: func() error {
					for _, p := range d.Processes() {
						if err := p.Restart(t.Context()); err != nil {
							return err
						}
					}
					return nil
				},
			}
			s.play(t, func(t *testing.T, ctx context.Context, s stage) { encryptedBridge(t, ctx, d, s) })
		})
	}
}

func encryptedBridge(t *testing.T, ctx context.Context, d *deploy.Deployment, s stage) {
	program := goolmCompany(t)
	alice := program.act(t, ctx, "alice", s.account("alice"), atOnce)
	name := "bridge-" + strings.ToLower(rand.Text()[:8])
	bridge := &actor{company: program, t: t, ctx: ctx, name: "bridge",
		person: person{URL: d.URL(), UserID: "@" + name + ":" + string(d.Config.Matrix.ServerName)}}
	var server struct {
		URL string `json:"url"`
	}
	bridge.do("listen", nil, &server)
	token, secret := rand.Text(), rand.Text()
	registration, err := json.Marshal(object{"id": name, "url": server.URL, "as_token": token, "hs_token": secret,
		"sender_localpart": name, "rate_limited": false, "receive_ephemeral": true, "org.matrix.msc3202": true,
		"io.element.msc4190": true, "namespaces": object{"users": []object{{"exclusive": true, "regex": "@" + name + "_.*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Register(name, string(registration)); err != nil {
		t.Fatal(err)
	}
	var made struct {
		DeviceID string `json:"device_id"`
	}
	bridge.do("begin", object{"url": d.URL(), "user_id": bridge.person.UserID, "as_token": token, "hs_token": secret}, &made)
	bridge.device = made.DeviceID

	room := meet(alice, bridge)
	all := []*actor{alice, bridge}
	talk := func(readers ...*actor) {
		t.Helper()
		for _, a := range readers {
			m := a.say(room, "hello from "+a.name)
			for _, b := range readers {
				if b != a {
					b.reads(room, m)
				}
			}
		}
	}
	talk(all...)
	// Another device of alice's: the bridge hears of it, and encrypts for it.
	alice2 := program.act(t, ctx, "alice2", alice.person, atOnce)
	bridge.devices(alice, alice.device, alice2.device)
	alice2.do("joined", object{"room": room, "count": 2}, &struct{}{})
	m := bridge.say(room, "for both devices")
	for _, a := range []*actor{alice, alice2} {
		a.reads(room, m)
	}
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		for _, a := range all {
			m := a.say(room, fmt.Sprint("after restarts ", n))
			for _, b := range all {
				if b != a {
					b.reads(room, m)
				}
			}
		}
	}
}
