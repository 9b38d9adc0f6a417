package clientapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the protocol of the endpoint asks for it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/authn"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// server is a clientapi on SQLite, with rooms that the test fills in.
type server struct {
	t      *testing.T
	api    *api.ClientAPI
	room   *roomserver.RoomserverAPI
	typing *typingserver.TypingserverAPI
	sync   *syncapi.SyncAPI
	db     *sqlutil.DB
	cfg    *config.Config
	http   http.Handler
}

// each runs a test on both databases.
func each(t *testing.T, change func(*config.Config), body func(t *testing.T, s *server)) {
	t.Run("sqlite", func(t *testing.T) { body(t, newServer(t, "file:"+filepath.Join(t.TempDir(), "test.db"), change)) })
	t.Run("postgres", func(t *testing.T) { body(t, newServer(t, test.Postgres(t), change)) })
}

func newServer(t *testing.T, connection string, change func(*config.Config)) *server {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := config.Default()
	cfg.Matrix.ServerName, cfg.Matrix.PasswordHashCost = "test", 4
	cfg.Matrix.Registration = config.Registration{Enabled: true, Verification: config.VerificationNone, SharedSecret: "secret"}
	if change != nil {
		change(cfg)
	}
	s := &server{t: t, room: new(roomserver.RoomserverAPI), typing: new(typingserver.TypingserverAPI), sync: new(syncapi.SyncAPI), db: db, cfg: cfg}
	s.sync.QueryBlockInvites = func(context.Context, syncapi.QueryBlockInvitesRequest) (res syncapi.QueryBlockInvitesResponse, err error) {
		return res, nil
	}
	auth := authn.New(func(ctx context.Context, token string, user id.UserID, device id.DeviceID) (httputil.Caller, error) {
		found, err := s.api.QueryToken(ctx, api.QueryTokenRequest{Token: token, UserID: user, DeviceID: device, Address: authn.ClientAddress(ctx)})
		return found.Caller, err
	}, authn.MaxTTL, nil)
	c, err := New(t.Context(), component.Deps{Config: cfg, DB: db, Log: logrus.NewEntry(logrus.New()), Auth: auth, Transport: eventlog.NewEmbedded()}, Peers{Room: s.room, Sync: s.sync, Typing: s.typing})
	if err != nil {
		t.Fatal(err)
	}
	s.api, _ = c.API.(*api.ClientAPI)
	router, err := httputil.NewRouter(c.Routes, httputil.RouterDeps{Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	s.http = router
	return s
}

// call sends a request. body is an object or a string of JSON; nil for none.
func (s *server) call(method, path, token string, body any) (int, gjson.Result) {
	s.t.Helper()
	text, is := body.(string)
	if !is && body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(raw)
	}
	if !strings.HasPrefix(path, "/_") && !strings.HasPrefix(path, "/.") {
		path = "/_matrix/client/v3" + path
	}
	r := httptest.NewRequest(method, path, bytes.NewReader([]byte(text)))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.http.ServeHTTP(w, r)
	if !json.Valid(w.Body.Bytes()) {
		s.t.Fatalf("%s %s answers %d %s", method, path, w.Code, w.Body)
	}
	return w.Code, gjson.ParseBytes(w.Body.Bytes())
}

// want is call, where the answer must have a status and, unless it is a success, an errcode.
func (s *server) want(status int, errcode, method, path, token string, body any) gjson.Result {
	s.t.Helper()
	code, answer := s.call(method, path, token, body)
	if code != status || answer.Get("errcode").Str != errcode {
		s.t.Fatalf("%s %s answers %d %s, want %d %s", method, path, code, answer.Raw, status, errcode)
	}
	return answer
}

type object = map[string]any

var dummy = object{"type": "m.login.dummy"}

// register makes an account and returns its first access token.
func (s *server) register(name string) string {
	s.t.Helper()
	return s.want(200, "", "POST", "/register", "", object{"username": name, "password": "pw-" + name, "auth": dummy}).Get("access_token").Str
}

func (s *server) login(name string, more object) gjson.Result {
	s.t.Helper()
	body := object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": name}, "password": "pw-" + name}
	for k, v := range more {
		body[k] = v
	}
	return s.want(200, "", "POST", "/login", "", body)
}

func password(name string) object {
	return object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": name}, "password": "pw-" + name}
}

// log reads what happened to a user: the types of the messages, each with the device if it names one.
func (s *server) log(user id.UserID) []string {
	s.t.Helper()
	page, err := s.api.ReadLog(s.t.Context(), eventlog.ReadRequest{Topic: api.Topic, Partition: eventlog.Partition(string(user)), From: 1, Limit: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for i := range page.Records {
		message, err := eventlog.Decode[api.OutputDevice](&page.Records[i])
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, strings.TrimSuffix(page.Records[i].Type+" "+string(message.DeviceID), " "))
	}
	return all
}

func TestRegistrationGoesThroughItsStagesOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		body := object{"username": "Alice", "password": "a password", "device_id": "PHONE"}
		begun := s.want(401, "", "POST", "/register", "", body)
		if begun.Get("flows.0.stages.0").Str != "m.login.dummy" || begun.Get("session").Str == "" {
			t.Fatalf("the first answer is %s", begun.Raw)
		}
		body["auth"] = object{"type": "m.login.password", "session": begun.Get("session").Str}
		s.want(401, "M_FORBIDDEN", "POST", "/register", "", body)
		body["auth"] = object{"type": "m.login.dummy", "session": begun.Get("session").Str}
		made := s.want(200, "", "POST", "/register", "", body)
		if made.Get("user_id").Str != "@alice:test" || made.Get("device_id").Str != "PHONE" {
			t.Fatalf("registered %s", made.Raw)
		}
		who := s.want(200, "", "GET", "/account/whoami", made.Get("access_token").Str, nil)
		if who.Get("user_id").Str != "@alice:test" || who.Get("device_id").Str != "PHONE" || who.Get("is_guest").Bool() {
			t.Errorf("whoami says %s", who.Raw)
		}
		body["username"] = "bob"
		s.want(401, "M_FORBIDDEN", "POST", "/register", "", body) // the session is used up
		s.want(400, "M_USER_IN_USE", "POST", "/register", "", object{"username": "alice"})
		s.want(400, "M_USER_IN_USE", "GET", "/register/available?username=ALICE", "", nil)
		s.want(400, "M_INVALID_USERNAME", "POST", "/register", "", object{"username": "with space"})
		s.want(400, "M_INVALID_USERNAME", "POST", "/register", "", object{"username": strings.Repeat("x", 255)})
		s.want(403, "M_FORBIDDEN", "POST", "/register?kind=guest", "", object{})
		s.want(400, "M_BAD_JSON", "POST", "/register", "", object{"username": 5})
		unnamed := s.want(200, "", "POST", "/register", "", object{"password": "p", "auth": dummy, "inhibit_login": true})
		if _, err := id.ParseUserID(unnamed.Get("user_id").Str); err != nil || unnamed.Get("access_token").Exists() {
			t.Errorf("without a name and a login: %s", unnamed.Raw)
		}
	})
}

func TestRegistrationByTokenTakesOnlyItsTokens(t *testing.T) {
	each(t, func(c *config.Config) {
		c.Matrix.Registration = config.Registration{Enabled: true, Verification: config.VerificationToken, Tokens: []string{"sesame"}, Guests: true}
	}, func(t *testing.T, s *server) {
		body := object{"username": "alice", "password": "p", "auth": dummy}
		s.want(401, "M_FORBIDDEN", "POST", "/register", "", body)
		body["auth"] = object{"type": "m.login.registration_token", "token": "wrong"}
		again := s.want(401, "M_FORBIDDEN", "POST", "/register", "", body)
		body["auth"] = object{"type": "m.login.registration_token", "token": "sesame", "session": again.Get("session").Str}
		s.want(200, "", "POST", "/register", "", body)
		for token, valid := range map[string]bool{"sesame": true, "wrong": false} {
			if got := s.want(200, "", "GET", "/_matrix/client/v1/register/m.login.registration_token/validity?token="+token, "", nil); got.Get("valid").Bool() != valid {
				t.Errorf("the token %s: %s", token, got.Raw)
			}
		}
		guest := s.want(200, "", "POST", "/register?kind=guest", "", object{"device_id": "MINE"})
		if guest.Get("device_id").Str == "MINE" {
			t.Error("a guest has picked a device id")
		}
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/createRoom", guest.Get("access_token").Str, object{})
		s.want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", "/account/password", guest.Get("access_token").Str, object{"new_password": "x"})
	})
}

func TestTheSharedSecretMakesAccountsOnceANonce(t *testing.T) {
	each(t, func(c *config.Config) { c.Matrix.Registration.Enabled = false }, func(t *testing.T, s *server) {
		s.want(403, "M_FORBIDDEN", "POST", "/register", "", object{})
		nonce := s.want(200, "", "GET", "/_synapse/admin/v1/register", "", nil).Get("nonce").Str
		body := func(nonce, name, kind string) object {
			mac := hmac.New(sha1.New, []byte("secret"))
			fmt.Fprintf(mac, "%s\x00%s\x00pw-%s\x00%s", nonce, name, name, kind)
			return object{"nonce": nonce, "username": name, "password": "pw-" + name, "admin": kind == "admin", "mac": hex.EncodeToString(mac.Sum(nil))}
		}
		wrong := body(nonce, "root", "notadmin")
		wrong["admin"] = true
		s.want(403, "M_FORBIDDEN", "POST", "/_synapse/admin/v1/register", "", wrong)
		made := s.want(200, "", "POST", "/_synapse/admin/v1/register", "", body(nonce, "root", "admin"))
		found, err := s.api.QueryToken(t.Context(), api.QueryTokenRequest{Token: made.Get("access_token").Str})
		if err != nil || !found.Caller.Admin || found.Caller.UserID != "@root:test" {
			t.Errorf("the token is of %+v: %v", found.Caller, err)
		}
		s.want(403, "M_FORBIDDEN", "POST", "/_synapse/admin/v1/register", "", body(nonce, "second", "notadmin"))
		s.want(403, "M_FORBIDDEN", "POST", "/_synapse/admin/v1/register", "", body("made up", "second", "notadmin"))
		if err := CreateAccount(t.Context(), s.db, s.cfg, "Tool", "pw-tool", false); err != nil {
			t.Fatal(err)
		}
		s.login("tool", nil)
		if err := CreateAccount(t.Context(), s.db, s.cfg, "tool", "other", false); !mxerr.Is(err, "M_USER_IN_USE") {
			t.Errorf("a second account of the same name: %v", err)
		}
	})
}

func TestLoginAndLogout(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		first := s.register("alice")
		for what, body := range map[string]object{
			"a wrong password":       {"type": "m.login.password", "user": "alice", "password": "wrong"},
			"a user without account": {"type": "m.login.password", "user": "nobody", "password": "pw-alice"},
			"a user of elsewhere":    {"type": "m.login.password", "user": "@alice:elsewhere", "password": "pw-alice"},
			"a login token":          {"type": "m.login.token", "token": "AAAA"},
		} {
			if code, answer := s.call("POST", "/login", "", body); code != 403 || answer.Get("errcode").Str != "M_FORBIDDEN" {
				t.Errorf("%s: %d %s", what, code, answer.Raw)
			}
		}
		s.want(400, "M_UNKNOWN", "POST", "/login", "", object{"type": "m.login.magic"})
		s.want(400, "M_MISSING_PARAM", "POST", "/login", "", object{"type": "m.login.password", "user": "alice"})
		phone := s.login("@Alice:test", object{"password": "pw-alice", "device_id": "PHONE", "initial_device_display_name": "my phone"})
		again := s.login("alice", object{"device_id": "PHONE", "initial_device_display_name": "other"})
		token := again.Get("access_token").Str
		if gone := s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", phone.Get("access_token").Str, nil); gone.Get("soft_logout").Bool() {
			t.Error("a replaced token is a soft logout")
		}
		if d := s.want(200, "", "GET", "/devices/PHONE", token, nil); d.Get("display_name").Str != "my phone" || d.Get("last_seen_ip").Str == "" {
			t.Errorf("the device is %s", d.Raw)
		}
		if n := s.want(200, "", "GET", "/devices", token, nil).Get("devices.#").Int(); n != 2 {
			t.Errorf("there are %d devices", n)
		}
		s.want(200, "", "PUT", "/devices/PHONE", token, object{"display_name": "renamed"})
		s.want(404, "M_NOT_FOUND", "PUT", "/devices/NONE", token, object{"display_name": "x"})
		s.want(400, "M_INVALID_PARAM", "GET", "/devices/%00", token, nil)
		s.want(200, "", "POST", "/logout", token, object{})
		s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", token, nil)
		s.want(200, "", "GET", "/account/whoami", first, nil)
		s.want(200, "", "POST", "/logout/all", first, object{})
		s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", first, nil)
		want := []string{"tokens PHONE", "tokens PHONE", "device_deleted PHONE", "tokens", "device_deleted"}
		if got := s.log("@alice:test"); !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
	})
}

func TestRefreshKeepsTheOldTokenUntilTheNewOneIsUsed(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		first := s.login("alice", object{"refresh_token": true})
		if first.Get("expires_in_ms").Int() <= 0 {
			t.Fatalf("a token that can be refreshed does not expire: %s", first.Raw)
		}
		refresh := func(of gjson.Result) (int, gjson.Result) {
			return s.call("POST", "/refresh", "", object{"refresh_token": of.Get("refresh_token").Str})
		}
		_, lost := refresh(first)
		code, second := refresh(first) // the client did not get the answer
		if code != 200 {
			t.Fatalf("a refresh that is repeated answers %d %s", code, second.Raw)
		}
		s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", lost.Get("access_token").Str, nil)
		s.want(200, "", "GET", "/account/whoami", first.Get("access_token").Str, nil)
		s.want(200, "", "GET", "/account/whoami", second.Get("access_token").Str, nil)
		if code, answer := refresh(first); code != 401 || answer.Get("errcode").Str != "M_UNKNOWN_TOKEN" || !answer.Get("soft_logout").Bool() {
			t.Errorf("a refresh token that was replaced answers %d %s", code, answer.Raw)
		}
		code, third := refresh(second)
		_, fourth := refresh(third) // using its refresh token is use, too
		if code != 200 || !fourth.Get("access_token").Exists() {
			t.Fatalf("a chain of refreshes ends with %s", fourth.Raw)
		}
		if code, _ := refresh(second); code != 401 {
			t.Error("a refresh token works although its successor was used")
		}
		if code, answer := refresh(gjson.Parse(`{"refresh_token":"made up"}`)); code != 401 || answer.Get("soft_logout").Bool() {
			t.Errorf("an unknown refresh token answers %d %s", code, answer.Raw)
		}
		s.want(200, "", "POST", "/logout", fourth.Get("access_token").Str, nil)
		if code, _ := refresh(fourth); code != 401 {
			t.Error("a refresh token survives the logout")
		}
	})
}

func TestAnExpiredTokenIsASoftLogout(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		token := s.login("alice", object{"refresh_token": true}).Get("access_token").Str
		expire := s.db.Stmt(`UPDATE clientapi_tokens SET expires_ms = 1 WHERE expires_ms > 0`)
		err := s.db.Write(t.Context(), "expire", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := expire.Exec(ctx, tx)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if answer := s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", token, nil); !answer.Get("soft_logout").Bool() {
			t.Errorf("an expired token answers %s", answer.Raw)
		}
	})
}

func TestWhatEndsDevicesAsksForThePassword(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice, bob := s.register("alice"), s.register("bob")
		s.login("alice", object{"device_id": "OLD"})
		s.login("alice", object{"device_id": "OTHER"})
		begun := s.want(401, "", "DELETE", "/devices/OLD", alice, nil)
		auth := password("alice")
		auth["session"] = begun.Get("session").Str
		s.want(401, "M_FORBIDDEN", "DELETE", "/devices/OTHER", alice, object{"auth": auth}) // the session is for OLD
		s.want(401, "M_FORBIDDEN", "DELETE", "/devices/OLD", bob, object{"auth": password("alice")})
		s.want(200, "", "DELETE", "/devices/OLD", alice, object{"auth": auth})
		s.want(404, "M_NOT_FOUND", "GET", "/devices/OLD", alice, nil)
		s.want(200, "", "POST", "/delete_devices", alice, object{"devices": []string{"OLD", "NEVER"}, "auth": password("alice")})

		token := s.want(200, "", "POST", "/_matrix/client/v1/login/get_token", alice, object{"auth": password("alice")}).Get("login_token").Str
		byToken := object{"type": "m.login.token", "token": token}
		if in := s.want(200, "", "POST", "/login", "", byToken); in.Get("user_id").Str != "@alice:test" {
			t.Errorf("the login token is of %s", in.Raw)
		}
		s.want(403, "M_FORBIDDEN", "POST", "/login", "", byToken)

		s.want(200, "", "POST", "/account/password", alice, object{"new_password": "new", "auth": password("alice")})
		if n := s.want(200, "", "GET", "/devices", alice, nil).Get("devices.#").Int(); n != 1 {
			t.Errorf("after a new password there are %d devices", n)
		}
		s.want(403, "M_FORBIDDEN", "POST", "/login", "", password("alice"))
		if code, _ := s.call("POST", "/login", "", object{"type": "m.login.password", "user": "alice", "password": "new"}); code != 200 {
			t.Error("the new password does not work")
		}
		s.want(400, "M_INVALID_PARAM", "POST", "/account/password", alice, object{"new_password": strings.Repeat("x", 513)})
	})
}

func TestDeactivationEndsTheAccountAndLeavesItsRooms(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice := s.register("alice")
		var left []roomserver.ChangeMembershipRequest
		s.room.QueryMemberships = func(_ context.Context, q roomserver.QueryMembershipsRequest) (roomserver.QueryMembershipsResponse, error) {
			return roomserver.QueryMembershipsResponse{Rooms: []roomserver.UserRoom{{RoomID: "!r", Membership: "join", EventID: "$e"}}}, nil
		}
		s.room.ChangeMembership = func(_ context.Context, q roomserver.ChangeMembershipRequest) (roomserver.SendEventResponse, error) {
			left = append(left, q)
			return roomserver.SendEventResponse{}, nil
		}
		erased := 0
		s.room.EraseUser = func(_ context.Context, q roomserver.EraseUserRequest) (roomserver.Empty, error) {
			if erased++; q.UserID != "@alice:test" || len(left) > 0 {
				t.Errorf("%s is erased after leaving %v", q.UserID, left)
			}
			return roomserver.Empty{}, nil
		}
		s.want(200, "", "POST", "/account/deactivate", alice, object{"auth": password("alice"), "erase": true})
		if erased != 1 || len(left) != 1 || left[0].Action != roomserver.ActionLeave || left[0].Target != "@alice:test" {
			t.Errorf("left: %+v", left)
		}
		s.want(401, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", alice, nil)
		s.want(403, "M_FORBIDDEN", "POST", "/login", "", password("alice"))
		s.want(400, "M_USER_IN_USE", "POST", "/register", "", object{"username": "alice"})
		s.want(404, "M_NOT_FOUND", "GET", "/profile/@alice:test", "", nil)
		users, err := s.api.QueryUsers(t.Context(), api.QueryUsersRequest{UserIDs: []id.UserID{"@alice:test"}})
		if err != nil || len(users.Active) != 0 {
			t.Errorf("active: %v %v", users.Active, err)
		}
	})
}

func TestProfilesReachEveryRoomOfTheUser(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice, bob := s.register("alice"), s.register("bob")
		var mu sync.Mutex
		sent := make(map[roomserver.RequestKey]roomserver.SendEventRequest)
		fail := true
		s.room.QueryMemberships = func(_ context.Context, q roomserver.QueryMembershipsRequest) (roomserver.QueryMembershipsResponse, error) {
			if q.UserID != "@alice:test" || !slices.Equal(q.Memberships, []string{"join"}) {
				t.Errorf("asked for the rooms of %+v", q)
			}
			var rooms []roomserver.UserRoom
			for i := range 20 {
				rooms = append(rooms, roomserver.UserRoom{RoomID: id.RoomID(fmt.Sprintf("!%d", i)), Membership: "join", EventID: "$e"})
			}
			return roomserver.QueryMembershipsResponse{Rooms: rooms}, nil
		}
		s.room.SendEvent = func(_ context.Context, q roomserver.SendEventRequest) (roomserver.SendEventResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			if fail && q.RoomID == "!7" {
				return roomserver.SendEventResponse{}, mxerr.Unavailable("not now")
			}
			sent[q.RequestKey] = q
			return roomserver.SendEventResponse{}, nil
		}
		name := "/profile/@alice:test/displayname"
		s.want(200, "", "PUT", name, alice, object{"displayname": "Alice <3"}) // a room cannot be told: it stays pending
		fail = false
		s.want(200, "", "PUT", name, alice, object{"displayname": "Alice <3"}) // told now, with the same keys
		if len(sent) != 20 {
			t.Errorf("%d events were sent", len(sent))
		}
		for _, q := range sent {
			if got := string(q.Content); got != `{"displayname":"Alice <3","membership":"join"}` || *q.StateKey != "@alice:test" {
				t.Fatalf("sent %s", got)
			}
		}
		s.want(403, "M_FORBIDDEN", "PUT", name, bob, object{"displayname": "Mallory"})
		s.want(400, "M_MISSING_PARAM", "PUT", name, alice, object{"name": "x"})
		s.want(400, "M_BAD_JSON", "PUT", name, alice, object{"displayname": 5})
		s.want(400, "M_INVALID_PARAM", "PUT", "/profile/@alice:test/avatar_url", alice, object{"avatar_url": "https://elsewhere/x.png"})
		s.want(200, "", "PUT", "/profile/@alice:test/org.example.field", alice, object{"org.example.field": object{"a": []int{1}}})
		s.want(200, "", "PUT", "/profile/@alice:test/m.tz", alice, object{"m.tz": "Europe/Berlin"})
		s.want(400, "M_INVALID_PARAM", "PUT", "/profile/@alice:test/Capital", alice, object{"Capital": 1})
		s.want(400, "M_KEY_TOO_LARGE", "PUT", "/profile/@alice:test/a."+strings.Repeat("x", 255), alice, object{})
		s.want(400, "M_PROFILE_TOO_LARGE", "PUT", "/profile/@alice:test/org.example.large", alice, object{"org.example.large": strings.Repeat("x", 65536)})
		if got := s.want(200, "", "GET", "/profile/@alice:test", "", nil).Raw; got != `{"displayname":"Alice <3","m.tz":"Europe/Berlin","org.example.field":{"a":[1]}}` {
			t.Errorf("the profile is %s", got)
		}
		if got := s.want(200, "", "GET", "/profile/@alice:test/org.example.field", "", nil).Raw; got != `{"org.example.field":{"a":[1]}}` {
			t.Errorf("the field is %s", got)
		}
		s.want(200, "", "DELETE", "/profile/@alice:test/org.example.field", alice, nil)
		s.want(404, "M_NOT_FOUND", "GET", "/profile/@alice:test/org.example.field", "", nil)
		s.want(404, "M_NOT_FOUND", "GET", "/profile/@nobody:test", "", nil)
		s.room.QueryVisibleUsers = func(_ context.Context, q roomserver.QueryVisibleUsersRequest) (roomserver.QueryVisibleUsersResponse, error) {
			return roomserver.QueryVisibleUsersResponse{Visible: q.UserIDs}, nil
		}
		found := s.want(200, "", "POST", "/user_directory/search", bob, object{"search_term": "ALICE <"})
		if found.Get("results.#").Int() != 1 || found.Get("results.0.user_id").Str != "@alice:test" || found.Get("results.0.display_name").Str != "Alice <3" {
			t.Errorf("found %s", found.Raw)
		}
		if none := s.want(200, "", "POST", "/user_directory/search", bob, object{"search_term": "%"}); none.Get("results.#").Int() != 0 {
			t.Errorf("a percent sign finds %s", none.Raw)
		}
	})
}

func TestSendsWithOneTransactionIDHaveOneRequestKey(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice := s.register("alice")
		other := s.login("alice", nil).Get("access_token").Str
		var sent []roomserver.SendEventRequest
		s.room.SendEvent = func(_ context.Context, q roomserver.SendEventRequest) (roomserver.SendEventResponse, error) {
			sent = append(sent, q)
			return roomserver.SendEventResponse{EventID: "$sent"}, nil
		}
		const room = "/rooms/!r:test"
		for _, send := range []struct{ token, path, body string }{
			{alice, "/send/m.room.message/1?ts=5", `{"body":"x","msgtype":"m.text"}`},
			{alice, "/send/m.room.message/1", `{"body":"x","msgtype":"m.text"}`},
			{other, "/send/m.room.message/1", `{}`},
			{alice, "/send/m.reaction/1", `{}`},
			{alice, "/redact/$e:test/1", `{"reason":"r"}`},
			{alice, "/state/m.room.topic/", `{"topic":"t"}`},
			{alice, "/state/m.room.topic", `{"topic":"t"}`},
			{alice, "/state/org.example/a%2Fb", `{}`},
		} {
			if got := s.want(200, "", "PUT", room+send.path, send.token, send.body); got.Get("event_id").Str != "$sent" {
				t.Fatalf("%s answers %s", send.path, got.Raw)
			}
		}
		if sent[0].RequestKey != sent[1].RequestKey || sent[0].TransactionID != "1" || sent[0].Timestamp != 0 || string(sent[0].Content) != `{"body":"x","msgtype":"m.text"}` {
			t.Errorf("sent %+v and %+v", sent[0], sent[1])
		}
		seen := make(map[roomserver.RequestKey]bool)
		for _, q := range sent[1:] {
			if seen[q.RequestKey] {
				t.Errorf("%+v has the request key of another request", q)
			}
			seen[q.RequestKey] = true
		}
		if sent[4].Redacts != "$e:test" || sent[4].Type != "m.room.redaction" || *sent[5].StateKey != "" || *sent[6].StateKey != "" || *sent[7].StateKey != "a/b" {
			t.Errorf("sent %+v", sent[4:])
		}
		s.want(400, "M_BAD_JSON", "PUT", room+"/send/m.room.message/2", alice, `[]`)
		s.want(400, "M_NOT_JSON", "PUT", room+"/send/m.room.message/2", alice, `{`)
		s.want(401, "M_MISSING_TOKEN", "PUT", room+"/send/m.room.message/2", "", `{}`)
		s.want(400, "M_INVALID_PARAM", "PUT", "/rooms/nonsense/send/m.room.message/2", alice, `{}`)
	})
}

func TestCreateRoomChecksTheFormOfItsBody(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice := s.register("alice")
		s.register("bob")
		var made roomserver.CreateRoomRequest
		s.room.CreateRoom = func(_ context.Context, q roomserver.CreateRoomRequest) (roomserver.CreateRoomResponse, error) {
			made = q
			return roomserver.CreateRoomResponse{RoomID: "!made"}, nil
		}
		got := s.want(200, "", "POST", "/createRoom", alice, `{"preset":"public_chat","room_alias_name":"ours","invite":["@bob:test","@bob:test","@x:far"],
		"initial_state":[{"type":"m.room.name","content":{"name":"n"}}],"creation_content":{"m.federate":false},"creation_content_unknown":1}`)
		if got.Get("room_id").Str != "!made" || !slices.Equal(made.Invite, []id.UserID{"@bob:test", "@x:far"}) || len(made.Profiles) != 2 ||
			string(made.CreationContent) != `{"m.federate":false}` || made.RequestKey == "" || made.Creator != "@alice:test" {
			t.Errorf("made %+v", made)
		}
		for body, errcode := range map[string]string{
			`{"preset":"odd"}`:                          "M_INVALID_PARAM",
			`{"visibility":"odd"}`:                      "M_INVALID_PARAM",
			`{"room_version":"999"}`:                    "M_UNSUPPORTED_ROOM_VERSION",
			`{"room_version":1}`:                        "M_BAD_JSON",
			`{"invite":["bob"]}`:                        "M_INVALID_PARAM",
			`{"room_alias_name":"a:b"}`:                 "M_INVALID_PARAM",
			`{"initial_state":[{"content":{}}]}`:        "M_BAD_JSON",
			`{"initial_state":[{"type":"a"}]}`:          "M_BAD_JSON",
			`{"creation_content":[]}`:                   "M_BAD_JSON",
			`{"power_level_content_override":"x"}`:      "M_BAD_JSON",
			`{"invite_3pid":[{"medium":"email"}]}`:      "M_SERVER_NOT_TRUSTED",
			`{"initial_state":{"type":"m.room.topic"}}`: "M_BAD_JSON",
		} {
			if _, answer := s.call("POST", "/createRoom", alice, body); answer.Get("errcode").Str != errcode {
				t.Errorf("%s answers %s, want %s", body, answer.Raw, errcode)
			}
		}
	})
}
