package encryption

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/test"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// Messages come to the services of their users, all of them, once where the transaction is stored once, and in the order in
// which each sender sent them; in parts that have a bound.
func TestMessagesComeOnceAndInOrder(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		sent := make(map[string][]string) // by service
		senders := make(map[id.UserID]int)
		for range test.Soak(40, 1000) {
			sender := w.users[w.pick(len(w.users))]
			out := syncapi.OutputServiceToDevice{Sender: sender, Type: "m.room.encrypted"}
			for range 1 + w.pick(3) {
				senders[sender]++
				out.Contents = append(out.Contents, json.RawMessage(fmt.Sprintf(`{"n":%d,"fill":%q}`, senders[sender],
					strings.Repeat("x", w.pick(20_000)))))
			}
			for range 1 + w.pick(150) {
				to := syncapi.ToDeviceRecipient{UserID: w.ghosts[w.pick(len(w.ghosts))], DeviceID: "D", Content: w.pick(len(out.Contents))}
				out.To = append(out.To, to)
			}
			w.record(w.s.TakeSync, syncapi.TypeServiceToDevice, out)
			for _, to := range out.To {
				for _, service := range encrypting(w.held.Load().Users(to.UserID)) {
					sent[service.ID] = append(sent[service.ID], line(sender, to.UserID, out.Contents[to.Content]))
				}
			}
			for name, b := range w.bridges {
				if w.pick(3) > 0 {
					continue
				}
				before := len(b.mail)
				w.send(b, w.pick(3) == 0)
				if w.pick(5) == 0 {
					w.restart()
				}
				size := 0
				for _, m := range b.mail[before:] {
					size += len(m.Content)
				}
				if n := len(b.mail) - before; n > maxMessages || size > maxMessageBytes+64<<10 {
					t.Fatalf("%s got %d messages of %d bytes in one part", name, n, size)
				}
			}
		}
		w.settle()
		for name, b := range w.bridges {
			got := make([]string, len(b.mail))
			for i, m := range b.mail {
				if m.Type != "m.room.encrypted" || m.ToDeviceID != "D" {
					t.Fatalf("a message came as %+v", m)
				}
				got[i] = line(m.Sender, m.ToUserID, m.Content)
			}
			if !slices.Equal(got, sent[name]) {
				t.Errorf("%s got %d messages in another order than %d were sent", name, len(got), len(sent[name]))
			}
		}
		if len(sent["plain"])+len(w.bridges["plain"].mail) > 0 || len(sent["irc"]) == 0 {
			t.Errorf("%d messages came to irc, and %d to plain, which does not encrypt", len(sent["irc"]), len(sent["plain"]))
		}
	})
}

func line(sender, to id.UserID, content json.RawMessage) string {
	return fmt.Sprint(sender, to, string(content))
}

// Counts come when they have changed, and with messages; those of deleted devices do not.
func TestCountsOfKeys(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		irc := w.bridges["irc"]
		ghost, silent := id.UserID("@irc_0:test.example"), id.UserID("@irc_1:test.example")
		counts := func(user id.UserID, device id.DeviceID, n int, unused ...string) clientapi.OutputKeyCounts {
			return clientapi.OutputKeyCounts{UserID: user, DeviceID: device, OneTime: map[string]int{"signed_curve25519": n},
				UnusedFallback: unused}
		}
		w.record(w.s.TakeUser, clientapi.TypeKeyCounts, counts(ghost, "D", 50), counts(ghost, "D", 49, "signed_curve25519"),
			counts(silent, "D", 7), counts("@user0:test.example", "D", 9), counts("@plain_0:test.example", "D", 9),
			clientapi.OutputKeyCounts{UserID: ghost, DeviceID: "NEW"})
		w.settle()
		if n := irc.counts[ghost]["D"]["signed_curve25519"]; n != 49 || !slices.Equal(irc.unused[ghost]["D"], []string{"signed_curve25519"}) {
			t.Errorf("irc was told of %d keys and %v", n, irc.unused)
		}
		if n, has := irc.counts[ghost]["NEW"]["signed_curve25519"]; n != 0 || !has || irc.unused[ghost]["NEW"] == nil {
			t.Errorf("of a device without keys, irc was told %v and %v", irc.counts, irc.unused)
		}
		if len(irc.counts) != 2 || irc.parts != 1 || w.bridges["plain"].parts+w.bridges["xmpp"].parts > 0 {
			t.Errorf("irc was told %v in %d parts", irc.counts, irc.parts)
		}
		if w.send(irc, false) {
			t.Error("irc is told again what has not changed")
		}
		// A message brings the counts of who gets it, and an event of those whom it is about.
		clear(irc.counts)
		w.record(w.s.TakeSync, syncapi.TypeServiceToDevice, syncapi.OutputServiceToDevice{Sender: "@user0:test.example", Type: "x",
			Contents: []json.RawMessage{json.RawMessage(`{}`)}, To: []syncapi.ToDeviceRecipient{{UserID: ghost, DeviceID: "D"}}})
		w.settle()
		if irc.counts[ghost]["D"]["signed_curve25519"] != 49 || irc.counts[silent] != nil {
			t.Errorf("with a message irc was told %v", irc.counts)
		}
		clear(irc.counts)
		if w.send(irc, false, silent); irc.counts[silent]["D"]["signed_curve25519"] != 7 || irc.counts[ghost] != nil {
			t.Errorf("with an event irc was told %v", irc.counts)
		}
		// A change that comes after a part was collected is told by the next.
		w.record(w.s.TakeUser, clientapi.TypeKeyCounts, counts(ghost, "D", 40))
		w.during = nil
		part, err := w.s.Collect(t.Context(), irc.Registration, nil)
		w.must(err)
		w.record(w.s.TakeUser, clientapi.TypeKeyCounts, counts(ghost, "D", 39))
		w.must(w.store.DB.Write(t.Context(), "transaction", part.Taken))
		w.settle()
		if n := irc.counts[ghost]["D"]["signed_curve25519"]; n != 39 {
			t.Errorf("irc was told of %d keys in the end", n)
		}
		// Deleted devices are forgotten, and another with the name of one begins anew.
		clear(irc.counts)
		w.record(w.s.TakeUser, clientapi.TypeKeyCounts, counts(ghost, "D", 38))
		w.record(w.s.TakeUser, clientapi.TypeDeviceDeleted, clientapi.OutputDevice{UserID: ghost, DeviceID: "D"})
		w.record(w.s.TakeUser, clientapi.TypeDeviceDeleted, clientapi.OutputDevice{UserID: silent})
		w.send(irc, false, ghost, silent)
		if irc.counts[ghost]["D"] != nil || irc.counts[silent] != nil || irc.counts[ghost]["NEW"] == nil {
			t.Errorf("of deleted devices irc was told %v", irc.counts)
		}
	})
}

// A service that does not encrypt any more gets no messages, and none stays.
func TestWhoDoesNotEncryptAnyMoreGetsNothing(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.record(w.s.TakeSync, syncapi.TypeServiceToDevice, syncapi.OutputServiceToDevice{Sender: "@user0:test.example", Type: "x",
			Contents: []json.RawMessage{json.RawMessage(`{}`)}, To: []syncapi.ToDeviceRecipient{{UserID: w.ghosts[0], DeviceID: "D"}}})
		plain := *w.bridges["irc"].Registration
		plain.Encryption = false
		for want := range 2 {
			part, err := w.s.Collect(t.Context(), &plain, nil)
			w.must(err)
			if !part.Empty() || (part.Taken == nil) != (want == 1) {
				t.Fatalf("look %d finds %+v", want, part)
			}
			if part.Taken != nil {
				w.must(w.store.DB.Write(t.Context(), "transaction", part.Taken))
			}
		}
		if w.settle(); len(w.bridges["irc"].mail) > 0 {
			t.Error("a message waits")
		}
	})
}
