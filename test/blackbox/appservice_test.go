package blackbox

import (
	"testing"
)

func TestRegistrationsAreReadWhileTheServerRuns(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		if err := d.Register(s.id+"-bad", "id: only"); err == nil {
			t.Error("a registration without its keys is taken")
		}
		if err := d.Register(s.id+"-bad", ""); err != nil {
			t.Error(err)
		}
	})
}

func TestAServiceGetsWhatHappensInTheRoomsOfItsUsers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice, ghost := d.user(t, "alice"), s.ghost("ghost")
		room := alice.publicRoom()
		before := alice.say(room, "nobody hears this")
		alice.must("POST", at("rooms", room, "invite"), object{"user_id": ghost.userID})
		ghost.join(room)
		message := alice.say(room, "hello")
		got := s.event(message)
		equal(t, "body", got.Get("content.body").Str, "hello")
		equal(t, "room", got.Get("room_id").Str, room)
		if !got.Get("unsigned.age").Exists() {
			t.Errorf("no age in %s", got.Raw)
		}
		events := s.eventsOf(room)
		if len(events) != 3 || events[2] != message {
			t.Fatalf("the service got %v, want the invite, the join and the message", events)
		}
		if events[0] == before {
			t.Error("the service got what was said before its user was invited")
		}
		invite := s.event(events[0])
		equal(t, "membership", invite.Get("content.membership").Str, "invite")
		if find(invite.Get("unsigned.invite_room_state"), "m.room.create", "").Raw == "" {
			t.Errorf("no stripped state in %s", invite.Raw)
		}
	})
}
