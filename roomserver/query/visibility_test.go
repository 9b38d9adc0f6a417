package query_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	. "github.com/matrix-org/dendrite/test/roomtest"
)

func as(user id.UserID) api.Viewer { return api.Viewer{UserID: user} }

// The rules of Client-Server API, § Room History Visibility, § Server behaviour, along the way of one user through a room.
func TestHistoryVisibility(t *testing.T) {
	type seen struct{ invited, joined, left, banned, again, stranger string }
	const all = "1-nobody 2-invited 3-joined 4-left 5-again"
	for visibility, want := range map[string]seen{
		"world_readable": {"1-nobody 2-invited", "1-nobody 2-invited 3-joined", "1-nobody 2-invited 3-joined 4-left", "1-nobody 2-invited 3-joined 4-left", all, all},
		"shared":         {"M_FORBIDDEN", "1-nobody 2-invited 3-joined", "1-nobody 2-invited 3-joined", "1-nobody 2-invited 3-joined", all, "M_FORBIDDEN"},
		"invited":        {"M_FORBIDDEN", "2-invited 3-joined", "2-invited 3-joined", "2-invited 3-joined", "2-invited 3-joined 5-again", "M_FORBIDDEN"},
		"joined":         {"M_FORBIDDEN", "3-joined", "3-joined", "3-joined", "3-joined 5-again", "M_FORBIDDEN"},
		"gibberish":      {"M_FORBIDDEN", "1-nobody 2-invited 3-joined", "1-nobody 2-invited 3-joined", "1-nobody 2-invited 3-joined", all, "M_FORBIDDEN"},
	} {
		t.Run(visibility, func(t *testing.T) {
			Databases(t, func(t *testing.T, w *World) {
				room := w.Room(visibility)
				var sent []id.EventID
				check := func(when string, viewer api.Viewer, want string) {
					t.Helper()
					got := w.History(room, viewer)
					if strings.Join(got, " ") != want {
						t.Errorf("%s, %s: /messages gives %q, want %q", when, viewer.UserID, got, want)
					}
					var byID []string
					for _, eventID := range sent {
						byID = append(byID, Bodies(Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: viewer, RoomID: room, EventIDs: []id.EventID{eventID}}).Events)...)
					}
					if want == "M_FORBIDDEN" {
						want = ""
					}
					if strings.Join(byID, " ") != want {
						t.Errorf("%s, %s: single events give %q, want %q", when, viewer.UserID, byID, want)
					}
				}
				say := func(body string) { sent = append(sent, w.Say(room, Alice, body)) }
				say("1-nobody")
				w.Do(api.ActionInvite, room, Alice, Bob)
				say("2-invited")
				check("invited", as(Bob), want.invited)
				w.Join(room, Bob)
				say("3-joined")
				check("joined", as(Bob), want.joined)
				w.Do(api.ActionLeave, room, Bob, Bob)
				say("4-left")
				check("left", as(Bob), want.left)
				check("left", as(Bob), want.left) // what is remembered of the leave is the same
				w.Do(api.ActionInvite, room, Alice, Bob)
				w.Do(api.ActionKick, room, Alice, Bob)
				w.Do(api.ActionBan, room, Alice, Bob)
				check("banned", as(Bob), want.banned)
				w.Do(api.ActionUnban, room, Alice, Bob)
				w.Join(room, Bob)
				say("5-again")
				check("joined again", as(Bob), want.again)
				check("in the end", as(Carol), want.stranger)
				check("in the end", as(Alice), all)
				check("in the end", api.Viewer{}, all)
			})
		})
	}
}

// Visibility events follow the visibility before or after them, whichever allows more.
func TestVisibilityEventsThemselves(t *testing.T) {
	w := New(t, true)
	room := w.Room("joined")
	opened := w.Set(room, Alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	open := w.Say(room, Alice, "open")
	closed := w.Set(room, Alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	hidden := w.Say(room, Alice, "hidden")
	res := Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: as(Carol), EventIDs: []id.EventID{hidden, closed, open, opened}})
	if got := ids(res.Events); !slices.Equal(got, []id.EventID{closed, open, opened}) {
		t.Errorf("a stranger sees %v of closed %s, open %s, opened %s", got, closed, open, opened)
	}
	if got := w.History(room, as(Carol)); got[0] != "M_FORBIDDEN" {
		t.Errorf("a room that is no longer world readable shows %v", got)
	}
}

func TestOwnMemberEvents(t *testing.T) {
	w := New(t, true)
	room := w.Room("joined")
	var own []id.EventID
	own = append(own, w.Do(api.ActionInvite, room, Alice, Bob), w.Do(api.ActionLeave, room, Bob, Bob))
	w.Join(room, Bob)
	own = append(own, Must(w, w.QueryMembership, api.QueryMembershipRequest{RoomID: room, UserID: Bob}).EventID)
	own = append(own, w.Do(api.ActionBan, room, Alice, Bob))
	own = append(own, w.Do(api.ActionUnban, room, Alice, Bob))
	res := Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: as(Bob), EventIDs: own})
	if got := ids(res.Events); !slices.Equal(got, own) {
		t.Errorf("of their own member events %v a user sees %v", own, got)
	}
	var memberships []string
	for _, e := range res.Events {
		memberships = append(memberships, e.Membership)
	}
	if want := []string{"invite", "leave", "join", "ban", "leave"}; !slices.Equal(memberships, want) {
		t.Errorf("unsigned.membership is %v, want %v", memberships, want)
	}
	if stranger := Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: as(Carol), EventIDs: own}); len(stranger.Events) > 0 {
		t.Errorf("a stranger sees %v", ids(stranger.Events))
	}
}

func TestGuests(t *testing.T) {
	w := New(t, true)
	guest := api.Viewer{UserID: Bob, Guest: true}
	room := w.Room("world_readable")
	w.Say(room, Alice, "open")
	w.Set(room, Alice, "m.room.history_visibility", "", `{"history_visibility":"shared"}`)
	w.Join(room, Bob)
	w.Say(room, Alice, "shared")
	if got := strings.Join(w.History(room, guest), " "); got != "open shared" {
		t.Errorf("a guest who is joined sees %s", got)
	}
	w.Do(api.ActionLeave, room, Bob, Bob)
	if got := strings.Join(w.History(room, guest), " "); got != "M_FORBIDDEN" {
		t.Errorf("a guest who left sees %s", got)
	}
	w.Set(room, Alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	if got := strings.Join(w.History(room, guest), " "); got != "open" {
		t.Errorf("a guest who left sees of a world readable room %s", got)
	}
}

func TestForgottenRoom(t *testing.T) {
	w := New(t, true)
	room := w.Room("shared")
	w.Join(room, Bob)
	w.Say(room, Alice, "hello")
	w.Do(api.ActionLeave, room, Bob, Bob)
	if got := strings.Join(w.History(room, as(Bob)), " "); got != "hello" {
		t.Errorf("who left sees %s", got)
	}
	Must(w, w.ForgetRoom, api.ForgetRoomRequest{RoomID: room, UserID: Bob})
	if got := strings.Join(w.History(room, as(Bob)), " "); got != "M_FORBIDDEN" {
		t.Errorf("who forgot the room sees %s", got)
	}
	Fails(w, "M_FORBIDDEN", w.QueryState, api.QueryStateRequest{Viewer: as(Bob), RoomID: room})
	Fails(w, "M_FORBIDDEN", w.QueryMembers, api.QueryMembersRequest{Viewer: as(Bob), RoomID: room})
}

// What comes with an event in unsigned is for the same viewer's eyes.
func TestUnsigned(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		room := w.Room("joined")
		named := w.Set(room, Alice, "m.room.name", "", `{"name":"old"}`)
		w.Join(room, Bob)
		renamed := w.Set(room, Alice, "m.room.name", "", `{"name":"new"}`)
		said := w.Say(room, Alice, "oops")
		kept := w.Say(room, Alice, "oh no")
		redaction := w.Redact(room, Alice, said, "a slip")
		get := func(viewer api.Viewer, eventID id.EventID) api.Event {
			t.Helper()
			events := Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: viewer, RoomID: room, EventIDs: []id.EventID{eventID}}).Events
			if len(events) != 1 {
				t.Fatalf("%s sees %d events", viewer.UserID, len(events))
			}
			return events[0]
		}
		e := get(as(Bob), renamed)
		if e.ReplacesState != named || string(e.PrevContent) != `{"name":"old"}` || e.Membership != "join" {
			t.Errorf("replaces %s with %s, membership %s", e.ReplacesState, e.PrevContent, e.Membership)
		}
		if e := get(as(Alice), named); e.ReplacesState != "" || e.PrevContent != nil {
			t.Errorf("the first name replaces %s with %s", e.ReplacesState, e.PrevContent)
		}
		if e := get(as(Bob), said); e.RedactedBecause == nil || e.RedactedBecause.ID() != redaction || len(Bodies([]api.Event{e})) != 1 ||
			Bodies([]api.Event{e})[0] != "m.room.message" || !strings.Contains(string(e.RedactedBecause.Content()), "a slip") {
			t.Errorf("a redacted event comes as %+v", e)
		}
		if e := get(as(Alice), kept); e.DeviceID != "D" || e.TransactionID == "" {
			t.Errorf("its sender gets the transaction id %q of %q", e.TransactionID, e.DeviceID)
		}
		if e := get(as(Bob), kept); e.DeviceID != "" || e.TransactionID != "" {
			t.Errorf("others get the transaction id %q of %q", e.TransactionID, e.DeviceID)
		}
		w.Do(api.ActionLeave, room, Bob, Bob)
		w.Redact(room, Alice, kept, "a secret")
		e = get(as(Bob), kept)
		if e.RedactedBecause == nil || strings.Contains(string(e.RedactedBecause.Content()), "a secret") || Bodies([]api.Event{e})[0] != "m.room.message" {
			t.Errorf("what was redacted after the leave comes as %s because of %s", e.PDU.Content(), e.RedactedBecause.Content())
		}
	})
}

func ids(events []api.Event) []id.EventID {
	all := []id.EventID{}
	for _, e := range events {
		all = append(all, e.PDU.ID())
	}
	return all
}

func members(events []api.Event) map[string]string {
	all := make(map[string]string)
	for _, e := range events {
		if user, _ := e.PDU.StateKey(); e.PDU.Type() == pdu.TypeMember {
			all[user] = e.PDU.Membership()
		}
	}
	return all
}
