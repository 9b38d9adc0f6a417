package clientapi

import (
	"context"
	"crypto/ed25519"
	"net/url"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver"
	roomserverapi "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// withRooms gives a server a roomserver.
func (s *server) withRooms() {
	s.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := roomserver.New(s.t.Context(), component.Deps{Config: s.cfg, DB: s.db, Log: logrus.NewEntry(logrus.New()), Sole: true,
		Signer: pdu.Signer{ServerName: s.cfg.Matrix.ServerName, KeyID: "ed25519:1", PrivateKey: key}, Transport: eventlog.NewEmbedded()}, roomserver.Peers{Client: s.api})
	if err != nil {
		s.t.Fatal(err)
	}
	rooms, _ := c.API.(*roomserverapi.RoomserverAPI)
	*s.room = *rooms
	ctx, stop := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() {
		stop()
		running.Wait()
	})
}

func TestTwoUsersTalk(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.withRooms()
		alice, bob, eve := s.register("alice"), s.register("bob"), s.register("eve")
		s.want(200, "", "PUT", "/profile/@alice:test/displayname", alice, object{"displayname": "Alice"})
		room := s.want(200, "", "POST", "/createRoom", alice, object{"name": "The room", "topic": "all", "preset": "private_chat",
			"room_alias_name": "room", "invite": []string{"@bob:test"}}).Get("room_id").Str
		path := "/rooms/" + url.PathEscape(room)
		s.want(403, "M_FORBIDDEN", "POST", path+"/join", eve, object{})
		s.want(403, "M_FORBIDDEN", "GET", path+"/messages?dir=b", eve, nil)
		s.want(200, "", "POST", "/join/%23room:test", bob, object{"reason": "invited"})
		if rooms := s.want(200, "", "GET", "/joined_rooms", bob, nil); rooms.Get("joined_rooms.0").Str != room {
			t.Errorf("joined %s", rooms.Raw)
		}
		first := s.want(200, "", "PUT", path+"/send/m.room.message/1", bob, object{"msgtype": "m.text", "body": "hello"}).Get("event_id").Str
		if again := s.want(200, "", "PUT", path+"/send/m.room.message/1", bob, object{"msgtype": "m.text", "body": "hello"}); again.Get("event_id").Str != first {
			t.Error("a repeated send made a second event")
		}
		s.want(200, "", "PUT", path+"/send/m.room.message/1", alice, object{"msgtype": "m.text", "body": "hi"})

		page := s.want(200, "", "GET", path+"/messages?dir=b&limit=1", bob, nil)
		if page.Get("chunk.0.content.body").Str != "hi" || page.Get("chunk.0.room_id").Str != room || page.Get("chunk.0.unsigned.transaction_id").Exists() {
			t.Errorf("the newest message is %s", page.Raw)
		}
		page = s.want(200, "", "GET", path+"/messages?dir=b&limit=1&from="+page.Get("end").Str, bob, nil)
		if page.Get("chunk.0.event_id").Str != first || page.Get("chunk.0.unsigned.transaction_id").Str != "1" {
			t.Errorf("the message before is %s", page.Raw)
		}
		all := s.want(200, "", "GET", path+"/messages?dir=f&limit=100", alice, nil)
		if all.Get("chunk.0.type").Str != "m.room.create" || all.Get("end").Exists() {
			t.Errorf("the history is %s", all.Raw)
		}
		around := s.want(200, "", "GET", path+"/context/"+first+"?limit=4", alice, nil)
		if around.Get("event.event_id").Str != first || around.Get("events_after.0.content.body").Str != "hi" || !around.Get("state.0").Exists() {
			t.Errorf("the context is %s", around.Raw)
		}

		s.want(200, "", "PUT", "/profile/@bob:test/displayname", bob, object{"displayname": "Bob"})
		if joined := s.want(200, "", "GET", path+"/joined_members", bob, nil); joined.Get(`joined.@alice\:test.display_name`).Str != "Alice" ||
			joined.Get(`joined.@bob\:test.display_name`).Str != "Bob" {
			t.Errorf("the members are %s", joined.Raw)
		}
		s.want(200, "", "PUT", path+"/redact/"+first+"/2", bob, object{"reason": "typo"})
		if gone := s.want(200, "", "GET", path+"/event/"+first, alice, nil); gone.Get("content.body").Exists() || gone.Get("unsigned.redacted_because.content.reason").Str != "typo" {
			t.Errorf("the redacted event is %s", gone.Raw)
		}
		if topic := s.want(200, "", "GET", path+"/state/m.room.name/", bob, nil); topic.Raw != `{"name":"The room"}` {
			t.Errorf("the name is %s", topic.Raw)
		}
		if event := s.want(200, "", "GET", path+"/state/m.room.name?format=event", bob, nil); event.Get("event_id").Str == "" || event.Get("sender").Str != "@alice:test" {
			t.Errorf("the name's event is %s", event.Raw)
		}
		s.want(404, "M_NOT_FOUND", "GET", path+"/state/org.example", bob, nil)
		s.want(403, "M_FORBIDDEN", "PUT", path+"/state/m.room.topic", bob, object{"topic": "mine"})
		s.want(200, "", "PUT", path+"/state/m.room.canonical_alias", alice, object{"alias": "#room:test"})

		if at := s.want(200, "", "GET", path+"/members?membership=join", alice, nil); at.Get("chunk.#").Int() != 2 {
			t.Errorf("joined: %s", at.Raw)
		}
		s.want(200, "", "POST", path+"/ban", alice, object{"user_id": "@bob:test", "reason": "enough"})
		s.want(403, "M_FORBIDDEN", "PUT", path+"/send/m.room.message/3", bob, object{"body": "x"})
		s.want(200, "", "POST", path+"/unban", alice, object{"user_id": "@bob:test"})
		s.want(200, "", "POST", path+"/forget", bob, object{})
		s.want(400, "M_MISSING_PARAM", "POST", path+"/kick", alice, object{})
		s.want(400, "M_INVALID_PARAM", "POST", path+"/invite", alice, object{"user_id": "eve"})

		if where := s.want(200, "", "GET", "/directory/room/%23room:test", "", nil); where.Get("room_id").Str != room || where.Get("servers.0").Str != "test" {
			t.Errorf("the alias leads to %s", where.Raw)
		}
		s.want(200, "", "PUT", "/directory/list/room/"+url.PathEscape(room), alice, object{"visibility": "public"})
		if listed := s.want(200, "", "POST", "/publicRooms", bob, object{"filter": object{"generic_search_term": "the ROOM", "room_types": []any{nil}}}); listed.Get("chunk.0.room_id").Str != room ||
			listed.Get("chunk.0.num_joined_members").Int() != 1 || listed.Get("total_room_count_estimate").Int() != 1 {
			t.Errorf("the directory is %s", listed.Raw)
		}
		for _, filter := range []string{`{"generic_search_term":"\u0000"}`, `{"room_types":["\u0000"]}`} {
			if none := s.want(200, "", "POST", "/publicRooms", bob, `{"filter":`+filter+`}`); none.Get("chunk.#").Int() != 0 {
				t.Errorf("%s finds %s", filter, none.Raw)
			}
		}
		s.want(200, "", "POST", path+"/leave", alice, nil)
	})
}

func TestGuestsAreOnlyWhereTheyMayBe(t *testing.T) {
	each(t, func(c *config.Config) { c.Matrix.Registration.Guests = true }, func(t *testing.T, s *server) {
		s.withRooms()
		alice := s.register("alice")
		room := "/rooms/" + url.PathEscape(s.want(200, "", "POST", "/createRoom", alice, object{"preset": "public_chat"}).Get("room_id").Str)
		made := s.want(200, "", "POST", "/register?kind=guest", "", object{})
		guest, self := made.Get("access_token").Str, room+"/state/m.room.member/"+url.PathEscape(made.Get("user_id").Str)
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", room+"/join", guest, nil)
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "PUT", self, guest, object{"membership": "join"})
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/createRoom", guest, nil)
		s.want(200, "", "PUT", room+"/state/m.room.guest_access", alice, object{"guest_access": "can_join"})
		s.want(200, "", "POST", room+"/join", guest, nil)
		s.want(200, "", "PUT", room+"/send/m.room.message/1", guest, object{"body": "hello"})
		s.want(200, "", "PUT", self, guest, object{"membership": "join", "displayname": "x"})
		s.want(200, "", "POST", room+"/leave", guest, nil)
	})
}

func TestTokensOfSyncAreTranslatedAndTypingNeedsAMember(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.withRooms()
		alice, eve := s.register("alice"), s.register("eve")
		room := s.want(200, "", "POST", "/createRoom", alice, nil).Get("room_id").Str
		path := "/rooms/" + url.PathEscape(room)
		newest, err := roomserverapi.ParseOrderToken(s.want(200, "", "GET", path+"/messages?dir=b", alice, nil).Get("start").Str)
		if err != nil {
			t.Fatal(err)
		}
		s.want(200, "", "PUT", path+"/send/m.room.message/1", alice, object{"body": "after"})
		s.sync.TranslateToken = func(_ context.Context, q syncapi.TranslateTokenRequest) (syncapi.TranslateTokenResponse, error) {
			if q.Token != "s1" {
				return syncapi.TranslateTokenResponse{}, mxerr.InvalidParam("%q is no token", q.Token)
			}
			return syncapi.TranslateTokenResponse{Order: newest}, nil
		}
		if page := s.want(200, "", "GET", path+"/messages?dir=f&from=s1", alice, nil); page.Get("chunk.#").Int() != 1 || page.Get("chunk.0.content.body").Str != "after" {
			t.Errorf("after the sync came %s", page.Raw)
		}
		s.want(400, "M_INVALID_PARAM", "GET", path+"/messages?dir=f&from=odd", alice, nil)
		s.want(400, "M_MISSING_PARAM", "GET", path+"/messages", alice, nil)
		s.want(400, "M_NOT_JSON", "GET", path+"/messages?dir=b&filter=x", alice, nil)

		var set []typingserver.SetTypingRequest
		s.typing.SetTyping = func(_ context.Context, q typingserver.SetTypingRequest) (typingserver.SetTypingResponse, error) {
			set = append(set, q)
			return typingserver.SetTypingResponse{}, nil
		}
		s.want(200, "", "PUT", path+"/typing/@alice:test", alice, object{"typing": true, "timeout": 999999999})
		s.want(403, "M_FORBIDDEN", "PUT", path+"/typing/@eve:test", eve, object{"typing": true})
		s.want(403, "M_FORBIDDEN", "PUT", path+"/typing/@alice:test", eve, object{"typing": true})
		if len(set) != 1 || !set[0].Typing || set[0].Timeout.Minutes() != 2 {
			t.Errorf("set %+v", set)
		}
		if none := s.want(200, "", "GET", "/publicRooms", "", nil); none.Get("chunk.#").Int() != 0 {
			t.Errorf("the directory has %s", none.Raw)
		}
	})
}
