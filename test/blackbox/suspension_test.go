package blackbox

import (
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/httputil"
)

// whatSuspendedMay says why suspended users may use what they may use (Client-Server API, § Account suspension), by
// the names of routes.
func whatSuspendedMay() map[string]string {
	all := make(map[string]string)
	for why, names := range map[string]string{
		"create additional sessions":     "login_get_token",
		"log out or delete any device":   "logout logout_all put_device delete_device delete_devices",
		"deactivate their account":       "account_password account_deactivate",
		"change or add admin contacts":   "put_third_party add_third_party bind_third_party",
		"leave rooms and reject invites": "leave forget",
		"redact their own events":        "send redact",
		"cancel what they delayed":       "delayed_event",
		"verify their devices":           "send_to_device",
		"see and receive messages": "search user_directory_search public_rooms_search put_filter receipt " +
			"read_markers post_dehydrated_events",
		"populate their key backup": "create_backup update_backup delete_backup put_backup_keys delete_backup_keys",
		"have a device for later":   "put_dehydrated_device delete_dehydrated_device",
		"verify devices, and write what belongs to that": "keys_upload keys_query keys_claim device_signing_upload " +
			"signatures_upload",
		"change what nobody else sees": "put_account_data put_room_account_data put_tag delete_tag set_pusher",
		"change their push rules":      "put_push_rule delete_push_rule put_push_rule_enabled put_push_rule_actions",
		"report, and say who they are": "report_room report_event report_user openid",
	} {
		for name := range strings.FieldsSeq(names) {
			all[name] = why
		}
	}
	return all
}

// Whoever is suspended can do nothing that is not listed, by any endpoint that there is.
func TestASuspendedAccountMayDoWhatIsListedOnly(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		admin, alice, bob := d.admin(t), d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		vars := map[string]string{"roomid": room, "roomidoralias": room, "userid": bob.userID,
			"eventid": bob.say(room, "his"), "txnid": "t", "type": "m.x",
			"statekey": "", "alias": "#x-" + bob.localpart + ":test.example", "key": "displayname",
			"deviceid": bob.deviceID, "delayid": "x", "action": "cancel",
			"filterid": "0", "tag": "x", "kind": "content", "ruleid": "x", "receipttype": "m.read", "reltype": "m.x",
			"eventtype": "m.x", "version": "1", "sessionid": "x", "networkid": "x"}
		admin.must("PUT", v1("admin", "suspend", bob.userID), object{"suspended": true})
		bob.everywhere(403, "M_USER_SUSPENDED", "POST", at("createRoom"), object{})
		may := whatSuspendedMay()
		for _, route := range routes(t) {
			if route.Auth == httputil.AuthNone || !changes(&route) {
				continue
			}
			session := bob.login() // some log out
			got := session.call(route.Method, fill(t, route.Path, vars), object{})
			if refused := got.errcode() == "M_USER_SUSPENDED"; refused == (may[route.Name] != "") &&
				route.Name != "send" {
				t.Errorf("%s %s, %s: %d %s; it is allowed because they may %q", route.Method, route.Path, route.Name,
					got.status, got.body.Raw, may[route.Name])
			}
		}
	})
}

// What somebody delays is not sent while they are suspended or locked, whenever they delayed it and whoever asks for
// it.
func TestDelayedEventsOfASuspendedAccount(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, d *deployment) {
		t.Parallel()
		admin, alice, nobody := d.admin(t), d.user(t, "alice"), d.anybody(t)
		room := alice.publicRoom()
		for _, what := range []string{"suspend", "lock"} {
			bob := d.user(t, "bob")
			bob.join(room)
			alice.setState(room, "m.room.power_levels", "", object{"users": object{bob.userID: 100}})
			delay := func(text string, delay time.Duration) string {
				t.Helper()
				return bob.must("PUT", delaying(at("rooms", room, "send", "m.room.message", bob.txn()), delay),
					object{"msgtype": "m.text", "body": text}).
					Get("delay_id").Str
			}
			due, later := delay("due "+what, 4*time.Second), delay("later "+what, time.Hour)
			kept := delay("kept "+what, time.Hour)
			bob.must("PUT", delaying(at("rooms", room, "state", "x.due", what), 4*time.Second), object{"text": what})
			put := func(is bool) {
				admin.must("PUT", v1("admin", what, bob.userID),
					object{map[string]string{"suspend": "suspended", "lock": "locked"}[what]: is})
			}
			put(true)
			if what == "suspend" {
				bob.everywhere(403, "M_USER_SUSPENDED", "POST", at("createRoom"), object{})
				for _, path := range []string{at("rooms", room, "send", "m.room.message", "s1"),
					at("rooms", room, "state", "m.room.topic", ""),
					at("rooms", room, "send", "m.room.redaction", "s2"),
					at("rooms", room, "redact", alice.say(room, "hers"), "s3")} {
					for _, wait := range []time.Duration{0, time.Millisecond, time.Hour} {
						bob.refused(403, "M_USER_SUSPENDED", "PUT", delaying(path, wait),
							object{"msgtype": "m.text", "body": "x"})
					}
				}
				bob.refused(403, "M_USER_SUSPENDED", "POST", delayedPath+"/"+later+"/send", object{})
			}
			errcode := map[string]string{"suspend": "M_USER_SUSPENDED", "lock": "M_FORBIDDEN"}[what]
			nobody.refused(403, errcode, "POST", delayedPath+"/"+later+"/send", object{})
			// What is due while the account is suspended or locked never comes; what is not, comes when it is due.
			after := alice.must("PUT", delaying(at("rooms", room, "send", "m.room.message", alice.txn()),
				5*time.Second),
				object{"msgtype": "m.text", "body": "after " + what}).Get("delay_id")
			alice.comes(room, "after "+what)
			nobody.refused(404, "M_NOT_FOUND", "POST", delayedPath+"/"+due+"/send", object{})
			put(false)
			nobody.must("POST", delayedPath+"/"+kept+"/send", object{})
			nobody.must("POST", delayedPath+"/"+later+"/cancel", object{})
			alice.comes(room, "kept "+what)
			said := strings.Join(bodies(alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=100",
				nil).Get("chunk")), ", ")
			if strings.Contains(said, "due "+what) || strings.Contains(said, "later "+what) ||
				strings.Contains(said, "x") {
				t.Errorf("%s after %s: they said %s", what, after, said)
			}
			alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "state", "x.due", what), nil)
		}
	})
}

// What cannot be sent now says so, and waits on.
func TestADelayedEventThatIsRefusedWaits(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		path := delayedPath + "/" + bob.must("PUT", delaying(at("rooms", room, "send", "m.room.message", bob.txn()),
			time.Hour),
			object{"msgtype": "m.text", "body": "at last"}).Get("delay_id").Str
		levels := func(n int) {
			alice.setState(room, "m.room.power_levels", "", object{"events_default": n})
		}
		levels(50)
		bob.refused(403, "M_FORBIDDEN", "POST", path+"/send", object{})
		equal(t, "number of events that wait", bob.must("GET", delayedPath, nil).Get("delayed_events.#").Int(), 1)
		levels(0)
		bob.must("POST", path+"/send", object{})
		alice.comes(room, "at last")
		bob.refused(404, "M_NOT_FOUND", "POST", path+"/x", object{}) // it is sent, whatever the action is called
	})
}

// Who repeats a request to delay an event, gets its first answer, also when the event was cancelled or sent
// meanwhile: there is no other.
func TestARepeatedDelayDelaysNothingMore(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for _, action := range []string{"cancel", "send"} {
			path := delaying(at("rooms", room, "send", "m.room.message", alice.txn()), time.Hour)
			put := func() string {
				t.Helper()
				return alice.must("PUT", path, object{"msgtype": "m.text", "body": action}).Get("delay_id").Str
			}
			first := put()
			equal(t, "delay_id of a repeated request", put(), first)
			equal(t, "number of events that wait", alice.must("GET", delayedPath, nil).Get("delayed_events.#").Int(), 1)
			alice.must("POST", delayedPath+"/"+first+"/"+action, object{})
			equal(t, "delay_id after "+action, put(), first)
			equal(t, "number of events that wait after "+action,
				alice.must("GET", delayedPath, nil).Get("delayed_events.#").Int(), 0)
		}
	})
}

// A redaction can be delayed by each of the endpoints that redact, and then redacts.
func TestDelayedRedactions(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		for _, version := range []string{"1", "10", "11", "12"} {
			alice := d.user(t, "alice")
			room := alice.createRoom(object{"room_version": version})
			one, two := alice.say(room, "one"), alice.say(room, "two")
			for path, body := range map[string]object{
				at("rooms", room, "redact", one, "t1"):              {"reason": "gone"},
				at("rooms", room, "send", "m.room.redaction", "t2"): {"redacts": two, "reason": "gone"},
			} {
				path = delaying(path, time.Hour)
				delayID := alice.must("PUT", path, body).Get("delay_id").Str
				equal(t, "delay_id of a repeated request", alice.must("PUT", path, body).Get("delay_id").Str, delayID)
				alice.must("POST", delayedPath+"/"+delayID+"/send", object{})
			}
			equal(t, "number of events that wait", alice.must("GET", delayedPath, nil).Get("delayed_events.#").Int(), 0)
			for _, event := range []string{one, two} {
				got := alice.must("GET", at("rooms", room, "event", event), nil)
				if got.Get("content.body").Exists() ||
					got.Get("unsigned.redacted_because.content.reason").Str != "gone" {
					t.Errorf("version %s: %s is not redacted", version, got.Raw)
				}
			}
		}
	})
}
