package contract

import "strings"

func password(user string) object {
	return object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": user}, "password": "the password"}
}

func invitation(token, user string) object {
	return object{"auth": object{"type": "m.login.registration_token", "token": token}, "username": user, "password": "the password",
		"device_id": strings.ToUpper(user), "initial_device_display_name": "A phone", "refresh_token": false}
}

// identity is what proves that somebody has an address.
func identity(more ...string) object {
	o := object{"client_secret": "secret", "sid": "1"}
	for i := 0; i < len(more); i += 2 {
		o[more[i]] = more[i+1]
	}
	return o
}

var (
	mail  = object{"client_secret": "secret", "email": "a@test.example", "send_attempt": 1}
	phone = object{"client_secret": "secret", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
)

// steps succeed, one after the other. With encryption and ending they drive every endpoint.
var steps = []step{
	{endpoint: "GET /_matrix/client/versions"},
	{endpoint: "GET /.well-known/matrix/client"},
	{endpoint: "GET /.well-known/matrix/server"},
	{endpoint: "GET /.well-known/matrix/support"},
	{endpoint: "GET /.well-known/matrix/policy_server"},

	// Accounts and devices.
	{endpoint: "GET /login"},
	{endpoint: "GET /register/available", query: "username=alice"},
	{endpoint: "GET /_matrix/client/v1/register/m.login.registration_token/validity", query: "token=welcome"},
	{endpoint: "POST /register", body: invitation("welcome", "alice"), keep: "alice=access_token device=device_id"},
	{endpoint: "POST /register", body: invitation("welcome", "bob"), keep: "bob=access_token"},
	{endpoint: "POST /register", query: "kind=guest", body: object{}, keep: "guest=access_token guestId=user_id"},
	{endpoint: "POST /login", body: object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": "alice"},
		"password": "the password", "refresh_token": true}, keep: "refresh=refresh_token"},
	{endpoint: "POST /refresh", body: object{"refresh_token": "{refresh}"}, keep: "alice2=access_token"},
	{as: "alice2", endpoint: "GET /account/whoami", keep: "device2=device_id"},
	{as: "guest", endpoint: "GET /account/whoami"},
	{as: "alice", endpoint: "POST /_matrix/client/v1/login/get_token", body: object{"auth": password("alice")}, keep: "login=login_token"},
	{endpoint: "POST /login", body: object{"type": "m.login.token", "token": "{login}"}, keep: "alice3=access_token device3=device_id"},
	{as: "alice", endpoint: "GET /capabilities"},
	{as: "alice", endpoint: "GET /voip/turnServer"},
	{as: "alice", endpoint: "GET /devices"},
	{as: "alice", endpoint: "PUT /devices/{deviceId}", with: "deviceId={device2}", body: object{"display_name": "Another phone"}},
	{as: "alice", endpoint: "GET /devices/{deviceId}", with: "deviceId={device2}"},
	{as: "alice", endpoint: "DELETE /devices/{deviceId}", with: "deviceId={device2}", body: object{"auth": password("alice")}},
	{as: "alice", endpoint: "POST /delete_devices", body: object{"devices": []string{"{device3}"}, "auth": password("alice")}},
	{as: "alice", endpoint: "POST /account/password", body: object{"new_password": "the password", "logout_devices": true, "auth": password("alice")}},

	{as: "alice", endpoint: "POST /user/{userId}/openid/request_token", body: object{}},
	{endpoint: "POST /login", body: password("admin"), keep: "admin=access_token"},
	{as: "admin", endpoint: "GET /admin/whois/{userId}"},
	{as: "admin", endpoint: "PUT /_matrix/client/v1/admin/lock/{userId}", with: "userId={b}", body: object{"locked": true}},
	{as: "admin", endpoint: "GET /_matrix/client/v1/admin/lock/{userId}", with: "userId={b}"},
	{as: "bob", endpoint: "GET /account/whoami", refusal: "401 M_USER_LOCKED"},
	{as: "admin", endpoint: "PUT /_matrix/client/v1/admin/lock/{userId}", with: "userId={b}", body: object{"locked": false}},
	{as: "admin", endpoint: "PUT /_matrix/client/v1/admin/suspend/{userId}", with: "userId={b}", body: object{"suspended": true}},
	{as: "admin", endpoint: "GET /_matrix/client/v1/admin/suspend/{userId}", with: "userId={b}"},
	{as: "bob", endpoint: "PUT /profile/{userId}/{keyName}", with: "userId={b} keyName=m.tz", body: object{"m.tz": "UTC"}, refusal: "403 M_USER_SUSPENDED"},
	{as: "admin", endpoint: "PUT /_matrix/client/v1/admin/suspend/{userId}", with: "userId={b}", body: object{"suspended": false}},
	{as: "admin", endpoint: "GET /capabilities"},

	// Third-party identifiers, which this server has none of.
	{as: "alice", endpoint: "GET /account/3pid"},
	{as: "alice", endpoint: "POST /account/3pid", body: object{"three_pid_creds": identity("id_server", "test.example", "id_access_token", "t")}, refusal: "403 M_THREEPID_AUTH_FAILED"},
	{as: "alice", endpoint: "POST /account/3pid/add", body: identity(), refusal: "403 M_THREEPID_DENIED"},
	{as: "alice", endpoint: "POST /account/3pid/bind", body: identity("id_server", "test.example", "id_access_token", "t"), refusal: "403 M_SERVER_NOT_TRUSTED"},
	{as: "alice", endpoint: "POST /account/3pid/delete", body: object{"medium": "email", "address": "a@test.example"}},
	{as: "alice", endpoint: "POST /account/3pid/unbind", body: object{"medium": "email", "address": "a@test.example"}},
	{endpoint: "POST /account/3pid/email/requestToken", body: mail, refusal: "400 M_THREEPID_MEDIUM_NOT_SUPPORTED"},
	{endpoint: "POST /account/3pid/msisdn/requestToken", body: phone, refusal: "400 M_THREEPID_MEDIUM_NOT_SUPPORTED"},
	{endpoint: "POST /account/password/email/requestToken", body: mail, refusal: "400 M_THREEPID_NOT_FOUND"},
	{endpoint: "POST /account/password/msisdn/requestToken", body: phone, refusal: "400 M_THREEPID_NOT_FOUND"},
	{endpoint: "POST /register/email/requestToken", body: mail, refusal: "403 M_THREEPID_DENIED"},
	{endpoint: "POST /register/msisdn/requestToken", body: phone, refusal: "403 M_THREEPID_DENIED"},

	// Profiles.
	{as: "alice", endpoint: "PUT /profile/{userId}/{keyName}", with: "keyName=displayname", body: object{"displayname": "Alice"}},
	{as: "alice", endpoint: "PUT /profile/{userId}/{keyName}", with: "keyName=avatar_url", body: object{"avatar_url": "mxc://test.example/a"}},
	{as: "alice", endpoint: "PUT /profile/{userId}/{keyName}", with: "keyName=m.tz", body: object{"m.tz": "Europe/Berlin"}},
	{as: "alice", endpoint: "DELETE /profile/{userId}/{keyName}", with: "keyName=m.tz"},
	{endpoint: "GET /profile/{userId}"},
	{endpoint: "GET /profile/{userId}/{keyName}", with: "keyName=displayname"},
	{as: "bob", endpoint: "POST /user_directory/search", body: object{"search_term": "ali", "limit": 5}},

	// A room.
	{as: "alice", endpoint: "POST /createRoom", body: object{"preset": "public_chat", "visibility": "public", "room_alias_name": "room", "name": "A room",
		"topic": "Everything", "invite": []string{"{b}"}, "is_direct": false, "creation_content": object{"m.federate": true},
		"initial_state":                []object{{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": "can_join"}}},
		"power_level_content_override": object{"events": object{"m.room.name": 0}}}, keep: "roomId=room_id"},
	{as: "alice", endpoint: "PUT /rooms/{roomId}/send/{eventType}/{txnId}", with: "eventType=m.room.message txnId=1",
		body: object{"msgtype": "m.text", "body": "Hello"}, keep: "eventId=event_id"},
	{as: "bob", endpoint: "GET /sync", keep: "since=next_batch"},
	{as: "bob", endpoint: "POST /join/{roomIdOrAlias}", with: "roomIdOrAlias={alias}", body: object{"reason": "invited"}},
	{as: "bob", endpoint: "POST /rooms/{roomId}/join", body: object{}},
	{as: "guest", endpoint: "POST /rooms/{roomId}/join", body: object{}},
	{as: "bob", endpoint: "GET /joined_rooms"},
	{as: "bob", endpoint: "PUT /rooms/{roomId}/send/{eventType}/{txnId}", with: "eventType=m.room.message txnId=1",
		body: object{"msgtype": "m.text", "body": "Hello, Alice"}, keep: "answerId=event_id"},
	{as: "bob", endpoint: "PUT /rooms/{roomId}/redact/{eventId}/{txnId}", with: "eventId={answerId} txnId=2", body: object{"reason": "spelling"}},
	{as: "alice", endpoint: "PUT /rooms/{roomId}/state/{eventType}/{stateKey}", with: "eventType=m.room.topic stateKey=", body: object{"topic": "Nothing"}},
	{as: "bob", endpoint: "GET /rooms/{roomId}/state/{eventType}/{stateKey}", with: "eventType=m.room.topic stateKey="},
	{as: "bob", endpoint: "GET /rooms/{roomId}/state"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/event/{eventId}"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/event/{eventId}", with: "eventId={answerId}"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/context/{eventId}", query: "limit=4"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/messages", query: "dir=b&limit=5", keep: "from=end"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/messages", query: "dir=b&limit=100&from={from}"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/members"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/joined_members"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/aliases"},
	{as: "bob", endpoint: "PUT /rooms/{roomId}/typing/{userId}", with: "userId={b}", body: object{"typing": true, "timeout": 30000}},

	// What relates to what.
	{as: "bob", endpoint: "PUT /rooms/{roomId}/send/{eventType}/{txnId}", with: "eventType=m.room.message txnId=3",
		body: object{"msgtype": "m.text", "body": "In a thread", "m.relates_to": object{"rel_type": "m.thread", "event_id": "{eventId}"}}, keep: "threadId=event_id"},
	{as: "bob", endpoint: "PUT /rooms/{roomId}/send/{eventType}/{txnId}", with: "eventType=m.reaction txnId=4",
		body: object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": "{threadId}", "key": "+"}}},
	{as: "bob", endpoint: "PUT /rooms/{roomId}/send/{eventType}/{txnId}", with: "eventType=m.reaction txnId=5",
		body: object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": "{threadId}", "key": "+"}}, refusal: "400 M_DUPLICATE_ANNOTATION"},
	{as: "alice", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}", query: "recurse=true&limit=1"},
	{as: "alice", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}", with: "relType=m.thread"},
	{as: "alice", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}", with: "relType=m.thread eventType=m.room.message"},
	{as: "alice", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/threads", query: "include=participated"},
	{as: "bob", endpoint: "GET /rooms/{roomId}/event/{eventId}"},
	{as: "bob", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event", query: "ts=0&dir=f"},

	// The directory.
	{endpoint: "GET /directory/room/{roomAlias}", with: "roomAlias={alias}"},
	{as: "alice", endpoint: "PUT /directory/room/{roomAlias}", with: "roomAlias={other}", body: object{"room_id": "{roomId}"}},
	{as: "alice", endpoint: "DELETE /directory/room/{roomAlias}", with: "roomAlias={other}"},
	{endpoint: "GET /directory/list/room/{roomId}"},
	{as: "alice", endpoint: "PUT /directory/list/room/{roomId}", body: object{"visibility": "public"}},
	{as: "service", endpoint: "PUT /directory/list/appservice/{networkId}/{roomId}", with: "networkId=irc", body: object{"visibility": "public"}},
	{as: "service", endpoint: "POST /register", body: object{"type": "m.login.application_service", "username": "_bridge_a"}},
	{as: "service", endpoint: "POST /login", body: object{"type": "m.login.application_service",
		"identifier": object{"type": "m.id.user", "user": "_bridge_a"}}},
	{as: "service", endpoint: "GET /account/whoami"},

	// What application services are asked.
	{as: "service", endpoint: "POST /_matrix/client/v1/appservice/{appserviceId}/ping", with: "appserviceId=bridge", body: object{"transaction_id": "meow"}},
	{as: "service", endpoint: "POST /_matrix/client/v1/appservice/{appserviceId}/ping", with: "appserviceId=other", body: object{}, refusal: "403 M_FORBIDDEN"},
	{as: "alice", endpoint: "POST /_matrix/client/v1/appservice/{appserviceId}/ping", with: "appserviceId=bridge", body: object{}, refusal: "403 M_FORBIDDEN"},
	{endpoint: "GET /directory/room/{roomAlias}", with: "roomAlias=#_bridge_made/there:test.example"},
	{endpoint: "GET /directory/room/{roomAlias}", with: "roomAlias=#_bridge_no:test.example", refusal: "404 M_NOT_FOUND"},
	{as: "bob", endpoint: "POST /join/{roomIdOrAlias}", with: "roomIdOrAlias=#_bridge_joined:test.example"},
	{endpoint: "GET /profile/{userId}", with: "userId=@_bridge_made:test.example"},
	{endpoint: "GET /profile/{userId}", with: "userId=@_bridge_no:test.example", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /thirdparty/protocols"},
	{as: "alice", endpoint: "GET /thirdparty/protocol/{protocol}", with: "protocol=irc"},
	{as: "alice", endpoint: "GET /thirdparty/protocol/{protocol}", with: "protocol=none", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /thirdparty/location/{protocol}", with: "protocol=irc", query: "channel=a&network=b"},
	{as: "alice", endpoint: "GET /thirdparty/location/{protocol}", with: "protocol=none", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /thirdparty/user/{protocol}", with: "protocol=irc", query: "nick=a"},
	{as: "alice", endpoint: "GET /thirdparty/user/{protocol}", with: "protocol=none", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /thirdparty/location", query: "alias={alias}"},
	{as: "alice", endpoint: "GET /thirdparty/location", query: "alias=none", refusal: "400 M_INVALID_PARAM"},
	{as: "alice", endpoint: "GET /thirdparty/location", refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "GET /thirdparty/user", query: "userid={a}"},
	{as: "alice", endpoint: "GET /thirdparty/user", query: "userid=none", refusal: "400 M_INVALID_PARAM"},
	{as: "alice", endpoint: "GET /thirdparty/user", refusal: "400 M_MISSING_PARAM"},
	{endpoint: "GET /publicRooms", query: "limit=5"},
	{as: "bob", endpoint: "POST /publicRooms", body: object{"limit": 5, "filter": object{"generic_search_term": "room", "room_types": []any{nil}}}},

	{as: "bob", endpoint: "GET /rooms/{roomId}/initialSync"},
	{as: "bob", endpoint: "POST /search", body: object{"search_categories": object{"room_events": object{"search_term": "hello", "keys": []string{"content.body"},
		"order_by": "recent", "include_state": true, "event_context": object{"before_limit": 1, "after_limit": 1, "include_profile": true},
		"groupings": object{"group_by": []object{{"key": "room_id"}, {"key": "sender"}}}, "filter": object{"limit": 1}}}}},
	{as: "bob", endpoint: "GET /_matrix/client/v1/room_summary/{roomIdOrAlias}", with: "roomIdOrAlias={roomId}"},
	{endpoint: "GET /_matrix/client/v1/room_summary/{roomIdOrAlias}", with: "roomIdOrAlias={alias}"},
	{as: "alice", endpoint: "POST /createRoom", body: object{"preset": "public_chat", "creation_content": object{"type": "m.space"}}, keep: "spaceId=room_id"},
	{as: "alice", endpoint: "PUT /rooms/{roomId}/state/{eventType}/{stateKey}", with: "roomId={spaceId} eventType=m.space.child stateKey={roomId}",
		body: object{"via": []string{"test.example"}, "suggested": true}},
	{as: "bob", endpoint: "GET /_matrix/client/v1/rooms/{roomId}/hierarchy", with: "roomId={spaceId}", query: "limit=1&suggested_only=true&max_depth=3"},
	{as: "alice", endpoint: "POST /rooms/{roomId}/upgrade", with: "roomId={spaceId}", body: object{"new_version": "12", "additional_creators": []string{"{b}"}}},
	{as: "alice", endpoint: "POST /rooms/{roomId}/upgrade", body: object{"new_version": "0"}, refusal: "400 M_UNSUPPORTED_ROOM_VERSION"},
	{as: "bob", endpoint: "GET /_matrix/client/v1/mutual_rooms", query: "user_id={a}"},
	{as: "bob", endpoint: "POST /rooms/{roomId}/report", body: object{"reason": "cake"}},
	{as: "bob", endpoint: "POST /rooms/{roomId}/report/{eventId}", body: object{"reason": "cake"}},
	{as: "bob", endpoint: "POST /users/{userId}/report", body: object{"reason": "cake"}},

	// What /sync shows.
	{as: "bob", endpoint: "POST /user/{userId}/filter", with: "userId={b}", body: object{"room": object{"timeline": object{"limit": 3, "lazy_load_members": true}}},
		keep: "filterId=filter_id"},
	{as: "bob", endpoint: "GET /user/{userId}/filter/{filterId}", with: "userId={b}"},
	{as: "bob", endpoint: "PUT /user/{userId}/account_data/{type}", with: "userId={b} type=m.direct", body: object{"{a}": []string{"{roomId}"}}},
	{as: "bob", endpoint: "GET /user/{userId}/account_data/{type}", with: "userId={b} type=m.direct"},
	{as: "bob", endpoint: "PUT /user/{userId}/rooms/{roomId}/account_data/{type}", with: "userId={b} type=org.example", body: object{"color": "red"}},
	{as: "bob", endpoint: "GET /user/{userId}/rooms/{roomId}/account_data/{type}", with: "userId={b} type=org.example"},
	{as: "bob", endpoint: "PUT /user/{userId}/rooms/{roomId}/tags/{tag}", with: "userId={b} tag=m.favourite", body: object{"order": 0.5}},
	{as: "bob", endpoint: "GET /user/{userId}/rooms/{roomId}/tags", with: "userId={b}"},
	{as: "bob", endpoint: "POST /rooms/{roomId}/receipt/{receiptType}/{eventId}", with: "receiptType=m.read", body: object{}},
	{as: "bob", endpoint: "POST /rooms/{roomId}/read_markers", body: object{"m.fully_read": "{eventId}", "m.read": "{eventId}"}},
	{as: "bob", endpoint: "GET /pushrules/"},
	{as: "bob", endpoint: "GET /pushrules/global/"},
	{as: "bob", endpoint: "PUT /pushrules/global/{kind}/{ruleId}", with: "kind=content ruleId=cake", body: object{"actions": []string{"notify"}, "pattern": "cake*"}},
	{as: "bob", endpoint: "GET /pushrules/global/{kind}/{ruleId}", with: "kind=content ruleId=cake"},
	{as: "bob", endpoint: "PUT /pushrules/global/{kind}/{ruleId}/enabled", with: "kind=content ruleId=cake", body: object{"enabled": false}},
	{as: "bob", endpoint: "GET /pushrules/global/{kind}/{ruleId}/enabled", with: "kind=content ruleId=cake"},
	{as: "bob", endpoint: "PUT /pushrules/global/{kind}/{ruleId}/actions", with: "kind=content ruleId=cake",
		body: object{"actions": []any{"notify", object{"set_tweak": "highlight"}}}},
	{as: "bob", endpoint: "GET /pushrules/global/{kind}/{ruleId}/actions", with: "kind=content ruleId=cake"},
	{as: "bob", endpoint: "GET /sync"},
	{as: "bob", endpoint: "GET /sync", query: "since={since}&full_state=true&filter={filterId}"},
	{as: "alice", endpoint: "PUT /presence/{userId}/status", body: object{"presence": "online", "status_msg": "here"}},
	{as: "bob", endpoint: "GET /presence/{userId}/status", with: "userId={a}"},
	{as: "bob", endpoint: "GET /sync"},
	{as: "bob", endpoint: "GET /initialSync", query: "limit=2&archived=true", keep: "stream=end"},
	{as: "bob", endpoint: "GET /events", query: "from={stream}"},
	{as: "bob", endpoint: "GET /events/{eventId}"},
	{as: "bob", endpoint: "GET /notifications", query: "limit=2&only=highlight"},
	{as: "bob", endpoint: "GET /notifications"},
	{as: "bob", endpoint: "POST /pushers/set", body: object{"kind": "http", "app_id": "org.example", "pushkey": "key", "app_display_name": "App",
		"device_display_name": "Phone", "lang": "en", "data": object{"url": "https://127.0.0.1:1/_matrix/push/v1/notify", "format": "event_id_only"}}},
	{as: "bob", endpoint: "GET /pushers"},
	{as: "bob", endpoint: "POST /pushers/set", body: object{"kind": nil, "app_id": "org.example", "pushkey": "key"}},
	{as: "bob", endpoint: "DELETE /pushrules/global/{kind}/{ruleId}", with: "kind=content ruleId=cake"},
	{as: "bob", endpoint: "DELETE /user/{userId}/rooms/{roomId}/tags/{tag}", with: "userId={b} tag=m.favourite"},

	// Messages to devices.
	{as: "alice", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.room_key_request txnId=1",
		body: object{"messages": object{"{b}": object{"*": object{"action": "request_cancellation", "request_id": "1",
			"requesting_device_id": "{device}"}}}}},
	{as: "bob", endpoint: "GET /sync", query: "since={since}", keep: "since=next_batch"},

	// Membership.
	{as: "alice", endpoint: "POST /rooms/{roomId}/kick", body: object{"user_id": "{b}", "reason": "cake"}},
	{as: "alice", endpoint: "POST /rooms/{roomId}/ban", body: object{"user_id": "{b}"}},
	{as: "bob", endpoint: "GET /sync", query: "since={since}", keep: "since=next_batch"},
	{as: "alice", endpoint: "POST /rooms/{roomId}/unban", body: object{"user_id": "{b}"}},
	{as: "alice", endpoint: "PUT /rooms/{roomId}/state/{eventType}/{stateKey}", with: "eventType=m.room.join_rules stateKey=", body: object{"join_rule": "knock"}},
	{as: "bob", endpoint: "POST /knock/{roomIdOrAlias}", with: "roomIdOrAlias={roomId}", body: object{"reason": "sorry"}},
	{as: "bob", endpoint: "GET /sync"},
	{as: "alice", endpoint: "POST /rooms/{roomId}/invite", body: object{"user_id": "{b}"}},
	{as: "bob", endpoint: "GET /sync"},
	{as: "bob", endpoint: "POST /rooms/{roomId}/leave", body: object{}},
	{as: "bob", endpoint: "POST /rooms/{roomId}/forget"},
}

// ending steps come last: they end what the others need.
var ending = []step{
	{endpoint: "POST /login", body: object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": "alice"},
		"password": "the password"}, keep: "alice2=access_token"},
	{as: "alice2", endpoint: "POST /logout"},
	{as: "alice", endpoint: "POST /logout/all"},
	{as: "bob", endpoint: "POST /account/deactivate", body: object{"auth": password("bob"), "erase": true}},
}
