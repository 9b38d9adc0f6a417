package directory_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	. "github.com/matrix-org/dendrite/test/roomtest"
)

func as(user id.UserID) api.Viewer { return api.Viewer{UserID: user} }

func TestAliases(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		room := w.Room("shared")
		w.Join(room, Bob)
		w.Join(room, Carol)
		set := func(user id.UserID, alias id.RoomAlias) api.SetAliasRequest {
			return api.SetAliasRequest{Alias: alias, RoomID: room, UserID: user}
		}
		Must(w, w.SetAlias, set(Bob, "#b:here"))
		Must(w, w.SetAlias, set(Alice, "#a:here"))
		Fails(w, "M_UNKNOWN", w.SetAlias, set(Alice, "#b:here"))
		Fails(w, "M_INVALID_PARAM", w.SetAlias, set(Alice, "#a:there"))
		Fails(w, "M_INVALID_PARAM", w.SetAlias, set(Alice, "a"))
		Fails(w, "M_FORBIDDEN", w.SetAlias, set("@dan:here", "#d:here"))
		Fails(w, "M_FORBIDDEN", w.SetAlias, api.SetAliasRequest{Alias: "#x:here", RoomID: "!none:here", UserID: Alice})

		found := Must(w, w.QueryAlias, api.QueryAliasRequest{Alias: "#b:here"})
		if found.RoomID != room || !slices.Equal(found.Servers, []id.ServerName{Server}) {
			t.Errorf("the alias leads to %+v", found)
		}
		Fails(w, "M_NOT_FOUND", w.QueryAlias, api.QueryAliasRequest{Alias: "#none:here"})
		list := Must(w, w.QueryRoomAliases, api.QueryRoomAliasesRequest{Viewer: as(Carol), RoomID: room})
		if !slices.Equal(list.Aliases, []id.RoomAlias{"#a:here", "#b:here"}) {
			t.Errorf("the room's aliases are %v", list.Aliases)
		}
		Fails(w, "M_FORBIDDEN", w.QueryRoomAliases, api.QueryRoomAliasesRequest{Viewer: as("@dan:here"), RoomID: room})
		Fails(w, "M_FORBIDDEN", w.QueryRoomAliases, api.QueryRoomAliasesRequest{Viewer: as(Alice), RoomID: "!none:here"})
		w.Set(room, Alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
		Must(w, w.QueryRoomAliases, api.QueryRoomAliasesRequest{Viewer: as("@dan:here"), RoomID: room})

		remove := func(user id.UserID, admin bool) api.RemoveAliasRequest {
			return api.RemoveAliasRequest{Alias: "#b:here", UserID: user, Admin: admin}
		}
		Fails(w, "M_FORBIDDEN", w.RemoveAlias, remove(Carol, false))
		Must(w, w.RemoveAlias, remove(Bob, false)) // it is theirs
		Fails(w, "M_NOT_FOUND", w.RemoveAlias, remove(Bob, false))
		Must(w, w.SetAlias, set(Bob, "#b:here"))
		Must(w, w.RemoveAlias, remove(Alice, false)) // who may set the canonical alias
		Must(w, w.SetAlias, set(Bob, "#b:here"))
		Must(w, w.RemoveAlias, remove("@dan:here", true)) // an administrator
	})
}

func TestPublish(t *testing.T) {
	w := New(t, true, config.DirectoryRule{Alias: "#bad*", Action: "deny"}, config.DirectoryRule{User: "@carol:*", Action: "deny"})
	room := w.Room("shared")
	w.Join(room, Bob)
	is := func(want bool) {
		t.Helper()
		if got := Must(w, w.QueryPublished, api.QueryPublishedRequest{RoomID: room}).Published; got != want {
			t.Errorf("published: %t", got)
		}
	}
	is(false)
	Fails(w, "M_FORBIDDEN", w.PublishRoom, api.PublishRoomRequest{RoomID: room, UserID: Bob, Publish: true})
	is(false)
	Must(w, w.PublishRoom, api.PublishRoomRequest{RoomID: room, UserID: Alice, Publish: true})
	Must(w, w.PublishRoom, api.PublishRoomRequest{RoomID: room, UserID: Alice, Publish: true})
	is(true)
	Must(w, w.PublishRoom, api.PublishRoomRequest{RoomID: room, UserID: Carol, Admin: true})
	is(false)
	if Must(w, w.QueryPublished, api.QueryPublishedRequest{RoomID: "!none:here"}).Published {
		t.Error("a room that does not exist is published")
	}
	Fails(w, "M_FORBIDDEN", w.PublishRoom, api.PublishRoomRequest{RoomID: "!none:here", UserID: Alice})
	Fails(w, "M_NOT_FOUND", w.PublishRoom, api.PublishRoomRequest{RoomID: "!none:here", UserID: Alice, Admin: true})
	Fails(w, "M_FORBIDDEN", w.SetAlias, api.SetAliasRequest{Alias: "#bad:here", RoomID: room, UserID: Alice})

	carols := Must(w, w.CreateRoom, api.CreateRoomRequest{RequestKey: "carol's", Creator: Carol, Preset: "public_chat"}).RoomID
	Fails(w, "M_FORBIDDEN", w.PublishRoom, api.PublishRoomRequest{RoomID: carols, UserID: Carol, Publish: true})
	Must(w, w.PublishRoom, api.PublishRoomRequest{RoomID: carols, UserID: Carol})
}

func TestPublicRooms(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		for i := range 7 {
			req := api.CreateRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("room ", i)), Creator: Alice, Preset: "public_chat", Visibility: "public",
				Name: fmt.Sprintf("Room_%d", i), Topic: "100% rooms"}
			if i == 3 {
				req.CreationContent = json.RawMessage(`{"type":"m.space"}`)
			}
			room := Must(w, w.CreateRoom, req).RoomID
			for user := range i {
				w.Join(room, id.UserID(fmt.Sprintf("@user%d:here", user)))
			}
		}
		w.Room("shared") // is not published
		names := func(rooms []api.RoomSummary) string {
			var all []string
			for _, r := range rooms {
				all = append(all, strings.TrimPrefix(r.Name, "Room_"))
			}
			return strings.Join(all, "")
		}
		req, got := api.QueryPublicRoomsRequest{Limit: 3}, ""
		for {
			res := Must(w, w.QueryPublicRooms, req)
			if got += names(res.Rooms) + " "; res.Total != 7 {
				t.Errorf("total %d", res.Total)
			}
			if res.NextBatch == "" {
				req.Since = res.PrevBatch
				break
			}
			req.Since = res.NextBatch
		}
		if got != "654 321 0 " {
			t.Errorf("pages: %s", got)
		}
		back := Must(w, w.QueryPublicRooms, req)
		req.Since = back.PrevBatch
		first := Must(w, w.QueryPublicRooms, req)
		if got := names(back.Rooms) + " " + names(first.Rooms); got != "321 654" || first.PrevBatch != "" {
			t.Errorf("back: %s, prev_batch %q", got, first.PrevBatch)
		}
		for search, want := range map[string]string{"ROOM_4": "4", "100%": "6543210", "0%r": "", "m_1": "1", "": "6543210", "none": ""} {
			if got := names(Must(w, w.QueryPublicRooms, api.QueryPublicRoomsRequest{Search: search}).Rooms); got != want {
				t.Errorf("search for %q: %s, want %s", search, got, want)
			}
		}
		for want, types := range map[string][]string{"3": {"m.space"}, "654210": {""}, "6543210": {"", "m.space"}, "": {}} {
			if got := names(Must(w, w.QueryPublicRooms, api.QueryPublicRoomsRequest{RoomTypes: types}).Rooms); got != want {
				t.Errorf("types %q: %s, want %s", types, got, want)
			}
		}
		for _, bad := range []string{"x", "n", "n-1", "p-1", "q1", "n1x", "\xff", "n99999999999"} {
			Fails(w, "M_INVALID_PARAM", w.QueryPublicRooms, api.QueryPublicRoomsRequest{Since: bad})
		}
	})
}
