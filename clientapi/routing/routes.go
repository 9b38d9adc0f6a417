// Package routing turns requests of the Client-Server API into calls: of clientapi's own packages for accounts, devices and
// profiles, of the owners of everything else for rooms and typing. It checks the form of what clients send; what they may do
// is decided by those who are called.
package routing

import (
	"net/http"
	"time"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/clientapi/dehydration"
	"github.com/matrix-org/dendrite/clientapi/delayed"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/clientapi/notices"
	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/clientapi/propagate"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/clientapi/uia"
	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/httputil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// Deps are what the endpoints use.
type Deps struct {
	Config      *config.Matrix
	TURN        *config.TURN
	Accounts    *accounts.Service
	Tokens      *tokens.Service
	UIA         *uia.Service
	Profiles    *profiles.Service
	Propagate   *propagate.Service
	Delayed     *delayed.Service
	Keys        *keys.Service
	Notices     *notices.Service
	Backups     *backups.Service
	Dehydration *dehydration.Service
	Unknown     *unknown.Finder
	Room        *roomserver.RoomserverAPI
	Sync        *syncapi.SyncAPI
	Typing      *typingserver.TypingserverAPI
	Typists     *typingserver.Follower // who types, for senders of messages
	Now         func() time.Time
}

type endpoints struct{ Deps }

// The prefixes of paths. Clients of r0 get what v3 says: it differs in names only.
const (
	root = "/_matrix/client"
	v3   = root + "/{r0|v3}"
	v1   = root + "/v1"

	msc2666 = root + "/unstable/uk.half-shot.msc2666"
	msc4133 = root + "/unstable/uk.tcpip.msc4133"
	msc4140 = root + "/unstable/org.matrix.msc4140/delayed_events"
	msc3814 = root + "/unstable/org.matrix.msc3814.v1/dehydrated_device"
)

// Routes lists the endpoints.
func Routes(d Deps) []httputil.Route {
	e := &endpoints{d}
	const (
		get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
		nobody, optional    = httputil.AuthNone, httputil.AuthOptional
		// Guests may use what § Guest Access lists, and log out, and join by alias.
		user, guest = httputil.AuthUser, httputil.AuthGuest
	)
	return append(backupRoutes(e), []httputil.Route{
		{Method: get, Path: root + "/versions", Name: "versions", Auth: nobody, Handler: e.versions},
		{Method: get, Path: "/.well-known/matrix/client", Name: "wellknown_client", Auth: nobody, Handler: e.wellKnownClient},
		{Method: get, Path: "/.well-known/matrix/server", Name: "wellknown_server", Auth: nobody, Handler: e.wellKnownServer},
		{Method: get, Path: "/.well-known/matrix/policy_server", Name: "wellknown_policy_server", Auth: nobody, Handler: e.wellKnownPolicyServer},
		{Method: get, Path: "/.well-known/matrix/support", Name: "wellknown_support", Auth: nobody, Handler: e.wellKnownSupport},
		{Method: get, Path: v3 + "/capabilities", Name: "capabilities", Auth: user, Handler: e.capabilities},
		{Method: get, Path: v3 + "/voip/turnServer", Name: "turn_server", Auth: user, Handler: e.turnServer},

		{Method: post, Path: v3 + "/register", Name: "register", Auth: nobody, Limit: "registration", Handler: e.register},
		{Method: get, Path: v3 + "/register/available", Name: "register_available", Auth: nobody, Limit: "registration", Handler: e.registerAvailable},
		{Method: get, Path: v1 + "/register/m.login.registration_token/validity", Name: "registration_token_validity", Auth: nobody, Limit: "registration",
			Handler: e.registrationTokenValidity},
		{Method: get, Path: "/_synapse/admin/v1/register", Name: "admin_register_nonce", Auth: nobody, Limit: "admin", Handler: e.adminRegisterNonce},
		{Method: post, Path: "/_synapse/admin/v1/register", Name: "admin_register", Auth: nobody, Limit: "admin", Handler: e.adminRegister},
		{Method: post, Path: "/_synapse/admin/v1/send_server_notice", Name: "server_notice", Auth: user, Limit: "admin", Handler: e.sendNotice},
		{Method: put, Path: "/_synapse/admin/v1/send_server_notice/{txnID}", Name: "server_notice", Auth: user, Limit: "admin", Handler: e.sendNotice},

		{Method: get, Path: v3 + "/login", Name: "login_flows", Auth: nobody, Handler: e.loginFlows},
		{Method: get, Path: "/_matrix/static/client/login/", Name: "login_page", Auth: nobody, Handler: e.loginPage},
		{Method: get, Path: v3 + "/auth/{type}/fallback/web", Name: "auth_page", Auth: nobody, Limit: "login", Handler: e.authPage},
		{Method: post, Path: v3 + "/auth/{type}/fallback/web", Name: "auth_page_done", Auth: nobody, Limit: "login", Handler: e.completeStage},
		{Method: post, Path: v3 + "/login", Name: "login", Auth: nobody, Limit: "login", Handler: e.login},
		{Method: post, Path: v1 + "/login/get_token", Name: "login_get_token", Auth: user, Limit: "login", Handler: e.loginGetToken},
		{Method: post, Path: v3 + "/refresh", Name: "refresh", Auth: nobody, Limit: "login", Handler: e.refresh},
		{Method: post, Path: v1 + "/refresh", Name: "refresh", Auth: nobody, Limit: "login", Handler: e.refresh},
		{Method: post, Path: v3 + "/logout", Name: "logout", Auth: guest, Locked: true, Limit: "login", Handler: e.logout},
		{Method: post, Path: v3 + "/logout/all", Name: "logout_all", Auth: guest, Locked: true, Limit: "login", Handler: e.logoutAll},
		{Method: get, Path: v3 + "/account/whoami", Name: "whoami", Auth: guest, Handler: e.whoami},
		{Method: post, Path: v3 + "/account/password", Name: "account_password", Auth: optional, Limit: "login", Handler: e.changePassword},
		{Method: post, Path: v3 + "/account/deactivate", Name: "account_deactivate", Auth: optional, Limit: "login", Handler: e.deactivate},
		{Method: get, Path: v3 + "/devices", Name: "devices", Auth: guest, Large: true, Handler: e.devices},
		{Method: get, Path: v3 + "/devices/{deviceID}", Name: "device", Auth: guest, Handler: e.device},
		{Method: put, Path: v3 + "/devices/{deviceID}", Name: "put_device", Auth: guest, Limit: "profile", Handler: e.putDevice},
		{Method: del, Path: v3 + "/devices/{deviceID}", Name: "delete_device", Auth: user, Limit: "login", Handler: e.deleteDevice},
		{Method: post, Path: v3 + "/delete_devices", Name: "delete_devices", Auth: user, Limit: "login", Handler: e.deleteDevices},

		{Method: post, Path: v3 + "/keys/upload", Name: "keys_upload", Auth: guest, Limit: "keys", Handler: e.uploadKeys},
		{Method: post, Path: v3 + "/keys/upload/{deviceID}", Name: "keys_upload", Auth: guest, Limit: "keys", Handler: e.uploadKeys},
		{Method: post, Path: v3 + "/keys/query", Name: "keys_query", Auth: guest, Limit: "keys", Large: true, Handler: e.queryKeys},
		{Method: post, Path: v3 + "/keys/claim", Name: "keys_claim", Auth: guest, Limit: "keys", Large: true, Handler: e.claimKeys},
		{Method: post, Path: root + "/{r0|v3|unstable}/keys/device_signing/upload", Name: "device_signing_upload", Auth: user, Limit: "keys",
			Handler: e.uploadCrossSigning},
		{Method: post, Path: root + "/{r0|v3|unstable}/keys/signatures/upload", Name: "signatures_upload", Auth: user, Limit: "keys",
			Handler: e.uploadSignatures},

		{Method: get, Path: v3 + "/admin/whois/{userID}", Name: "whois", Auth: user, Limit: "admin", Handler: e.whois},
		{Method: get, Path: v1 + "/admin/lock/{userID}", Name: "locked", Auth: user, Limit: "admin", Handler: e.moderated(accounts.Locked)},
		{Method: put, Path: v1 + "/admin/lock/{userID}", Name: "lock", Auth: user, Limit: "admin", Handler: e.moderate(accounts.Locked)},
		{Method: get, Path: v1 + "/admin/suspend/{userID}", Name: "suspended", Auth: user, Limit: "admin", Handler: e.moderated(accounts.Suspended)},
		{Method: put, Path: v1 + "/admin/suspend/{userID}", Name: "suspend", Auth: user, Limit: "admin", Handler: e.moderate(accounts.Suspended)},
		{Method: post, Path: v3 + "/user/{userID}/openid/request_token", Name: "openid", Auth: user, Limit: "login", Handler: e.openID},

		{Method: get, Path: v3 + "/account/3pid", Name: "third_parties", Auth: user, Handler: thirdParty(noThirdParties, nil)},
		{Method: post, Path: v3 + "/account/3pid", Name: "put_third_party", Auth: user, Limit: "login", Handler: thirdParty(nil, unverifiedThirdParty, "three_pid_creds")},
		{Method: post, Path: v3 + "/account/3pid/add", Name: "add_third_party", Auth: user, Limit: "login", Handler: thirdParty(nil, deniedThirdParty, "client_secret", "sid")},
		{Method: post, Path: v3 + "/account/3pid/bind", Name: "bind_third_party", Auth: user, Limit: "login",
			Handler: thirdParty(nil, untrustedIdentityServer, "client_secret", "id_server", "id_access_token", "sid")},
		{Method: post, Path: v3 + "/account/3pid/{delete|unbind}", Name: "unbind_third_party", Auth: user, Limit: "login", Handler: thirdParty(noUnbinding, nil, "medium", "address")},
		{Method: post, Path: v3 + "/account/3pid/email/requestToken", Name: "third_party_token", Auth: nobody, Limit: "login", Handler: thirdParty(nil, notByMedium, byMail...)},
		{Method: post, Path: v3 + "/account/3pid/msisdn/requestToken", Name: "third_party_token", Auth: nobody, Limit: "login", Handler: thirdParty(nil, notByMedium, byPhone...)},
		{Method: post, Path: v3 + "/account/password/email/requestToken", Name: "password_token", Auth: nobody, Limit: "login", Handler: thirdParty(nil, unknownThirdParty, byMail...)},
		{Method: post, Path: v3 + "/account/password/msisdn/requestToken", Name: "password_token", Auth: nobody, Limit: "login", Handler: thirdParty(nil, unknownThirdParty, byPhone...)},
		{Method: post, Path: v3 + "/register/email/requestToken", Name: "register_token", Auth: nobody, Limit: "registration", Handler: thirdParty(nil, deniedThirdParty, byMail...)},
		{Method: post, Path: v3 + "/register/msisdn/requestToken", Name: "register_token", Auth: nobody, Limit: "registration", Handler: thirdParty(nil, deniedThirdParty, byPhone...)},

		{Method: get, Path: v3 + "/profile/{userID}", Name: "profile", Auth: nobody, Handler: e.profile},
		{Method: get, Path: v3 + "/profile/{userID}/{key}", Name: "profile_field", Auth: nobody, Handler: e.profileField},
		{Method: put, Path: v3 + "/profile/{userID}/{key}", Name: "put_profile_field", Auth: guest, Limit: "profile", Handler: e.putProfileField},
		{Method: del, Path: v3 + "/profile/{userID}/{key}", Name: "delete_profile_field", Auth: guest, Limit: "profile", Handler: e.deleteProfileField},
		{Method: get, Path: msc4133 + "/profile/{userID}", Name: "profile", Auth: nobody, Handler: e.profile},
		{Method: get, Path: msc4133 + "/profile/{userID}/{key}", Name: "profile_field", Auth: nobody, Handler: e.profileField},
		{Method: put, Path: msc4133 + "/profile/{userID}/{key}", Name: "put_profile_field", Auth: guest, Limit: "profile",
			Handler: e.putProfileField},
		{Method: del, Path: msc4133 + "/profile/{userID}/{key}", Name: "delete_profile_field", Auth: guest, Limit: "profile",
			Handler: e.deleteProfileField},
		{Method: post, Path: v3 + "/user_directory/search", Name: "user_directory_search", Auth: user, Limit: "directory", Large: true, Handler: e.searchUsers},

		{Method: post, Path: v3 + "/createRoom", Name: "create_room", Auth: user, Limit: "room", Handler: e.createRoom},
		{Method: post, Path: v3 + "/rooms/{roomID}/upgrade", Name: "upgrade", Auth: user, Limit: "room", Handler: e.upgradeRoom},
		{Method: post, Path: v3 + "/join/{roomIDOrAlias}", Name: "join", Auth: guest, Limit: "membership", Handler: e.joinByIDOrAlias},
		{Method: post, Path: v3 + "/knock/{roomIDOrAlias}", Name: "knock", Auth: user, Limit: "membership", Handler: e.knock},
		{Method: post, Path: v3 + "/rooms/{roomID}/join", Name: "room_join", Auth: guest, Limit: "membership", Handler: e.joinByID},
		{Method: post, Path: v3 + "/rooms/{roomID}/invite", Name: "invite", Auth: user, Limit: "invite", Handler: e.membership(roomserver.ActionInvite)},
		{Method: post, Path: v3 + "/rooms/{roomID}/leave", Name: "leave", Auth: guest, Limit: "membership", Handler: e.membership(roomserver.ActionLeave)},
		{Method: post, Path: v3 + "/rooms/{roomID}/kick", Name: "kick", Auth: user, Limit: "membership", Handler: e.membership(roomserver.ActionKick)},
		{Method: post, Path: v3 + "/rooms/{roomID}/ban", Name: "ban", Auth: user, Limit: "membership", Handler: e.membership(roomserver.ActionBan)},
		{Method: post, Path: v3 + "/rooms/{roomID}/unban", Name: "unban", Auth: user, Limit: "membership", Handler: e.membership(roomserver.ActionUnban)},
		{Method: post, Path: v3 + "/rooms/{roomID}/forget", Name: "forget", Auth: user, Limit: "membership", Handler: e.forget},
		{Method: get, Path: v1 + "/mutual_rooms", Name: "mutual_rooms", Auth: user, Limit: "directory", Large: true,
			Handler: e.mutualRooms("from", "next_batch")},
		{Method: get, Path: msc2666 + "/user/mutual_rooms", Name: "mutual_rooms", Auth: user, Limit: "directory", Large: true,
			Handler: e.mutualRooms("batch_token", "next_batch_token")},
		{Method: post, Path: v3 + "/rooms/{roomID}/report", Name: "report_room", Auth: user, Limit: "room", Handler: e.reportRoom},
		{Method: post, Path: v3 + "/rooms/{roomID}/report/{eventID}", Name: "report_event", Auth: user, Limit: "room", Handler: e.reportEvent},
		{Method: post, Path: v3 + "/users/{userID}/report", Name: "report_user", Auth: user, Limit: "room", Handler: e.reportUser},
		{Method: get, Path: "/_dendrite/admin/v1/reports", Name: "reports", Auth: user, Limit: "admin", Large: true, Handler: e.reports},
		{Method: get, Path: v3 + "/joined_rooms", Name: "joined_rooms", Auth: user, Large: true, Handler: e.joinedRooms},

		{Method: put, Path: v3 + "/rooms/{roomID}/send/{type}/{txnID}", Name: "send", Auth: guest, Limit: "message", Handler: e.send},
		{Method: put, Path: v3 + "/rooms/{roomID}/redact/{eventID}/{txnID}", Name: "redact", Auth: user, Limit: "message", Handler: e.redact},
		{Method: put, Path: v3 + "/rooms/{roomID}/state/{type}", Name: "put_state", Auth: guest, Limit: "message", Handler: e.putState},
		{Method: put, Path: v3 + "/rooms/{roomID}/state/{type}/{stateKey}", Name: "put_state", Auth: guest, Limit: "message", Handler: e.putState},
		{Method: get, Path: msc3814, Name: "dehydrated_device", Auth: user, Handler: e.dehydrated},
		{Method: put, Path: msc3814, Name: "put_dehydrated_device", Auth: user, Limit: "keys", Handler: e.putDehydrated},
		{Method: del, Path: msc3814, Name: "delete_dehydrated_device", Auth: user, Limit: "keys", Handler: e.deleteDehydrated},
		{Method: get, Path: msc4140, Name: "delayed_events", Auth: guest, Handler: e.delayedEvents},
		{Method: post, Path: msc4140 + "/{delayID}", Name: "delayed_event", Auth: optional, Limit: "message", Handler: e.updateDelayed},
		{Method: post, Path: msc4140 + "/{delayID}/{action}", Name: "delayed_event", Auth: optional, Limit: "message", Handler: e.updateDelayed},
		{Method: get, Path: v3 + "/rooms/{roomID}/state", Name: "state", Auth: guest, Large: true, Handler: e.state},
		{Method: get, Path: v3 + "/rooms/{roomID}/state/{type}", Name: "state_event", Auth: guest, Handler: e.stateEvent},
		{Method: get, Path: v3 + "/rooms/{roomID}/state/{type}/{stateKey}", Name: "state_event", Auth: guest, Handler: e.stateEvent},
		{Method: get, Path: v3 + "/rooms/{roomID}/event/{eventID}", Name: "event", Auth: guest, Handler: e.event},
		{Method: get, Path: v3 + "/rooms/{roomID}/context/{eventID}", Name: "context", Auth: guest, Large: true, Handler: e.context},
		{Method: get, Path: v3 + "/rooms/{roomID}/messages", Name: "messages", Auth: guest, Large: true, Handler: e.messages},
		{Method: get, Path: v1 + "/rooms/{roomID}/relations/{eventID}", Name: "relations", Auth: user, Large: true, Handler: e.relations},
		{Method: get, Path: v1 + "/rooms/{roomID}/relations/{eventID}/{relType}", Name: "relations", Auth: user, Large: true, Handler: e.relations},
		{Method: get, Path: v1 + "/rooms/{roomID}/relations/{eventID}/{relType}/{eventType}", Name: "relations", Auth: user, Large: true, Handler: e.relations},
		{Method: get, Path: v1 + "/rooms/{roomID}/threads", Name: "threads", Auth: user, Large: true, Handler: e.threads},
		{Method: get, Path: v1 + "/rooms/{roomID}/timestamp_to_event", Name: "timestamp_to_event", Auth: user, Handler: e.timestampToEvent},
		{Method: get, Path: v1 + "/rooms/{roomID}/hierarchy", Name: "hierarchy", Auth: user, Limit: "directory", Large: true, Handler: e.hierarchy},
		{Method: get, Path: v1 + "/room_summary/{roomIDOrAlias}", Name: "room_summary", Auth: optional, Limit: "directory", Handler: e.roomSummary},
		{Method: get, Path: v3 + "/rooms/{roomID}/members", Name: "members", Auth: guest, Large: true, Handler: e.members},
		{Method: get, Path: v3 + "/rooms/{roomID}/joined_members", Name: "joined_members", Auth: user, Large: true, Handler: e.joinedMembers},
		{Method: get, Path: v3 + "/rooms/{roomID}/aliases", Name: "room_aliases", Auth: user, Handler: e.roomAliases},
		{Method: put, Path: v3 + "/rooms/{roomID}/typing/{userID}", Name: "typing", Auth: user, Limit: "ephemeral", Handler: e.typing},

		{Method: get, Path: v3 + "/directory/room/{alias}", Name: "alias", Auth: nobody, Limit: "directory", Handler: e.alias},
		{Method: put, Path: v3 + "/directory/room/{alias}", Name: "put_alias", Auth: user, Limit: "directory", Handler: e.putAlias},
		{Method: del, Path: v3 + "/directory/room/{alias}", Name: "delete_alias", Auth: user, Limit: "directory", Handler: e.deleteAlias},
		{Method: get, Path: v3 + "/directory/list/room/{roomID}", Name: "published", Auth: nobody, Limit: "directory", Handler: e.published},
		{Method: put, Path: v3 + "/directory/list/room/{roomID}", Name: "put_published", Auth: user, Limit: "directory", Handler: e.putPublished},
		{Method: put, Path: v3 + "/directory/list/appservice/{networkID}/{roomID}", Name: "put_published_in", Auth: user, Limit: "directory",
			Handler: e.putPublishedIn},
		{Method: del, Path: v3 + "/directory/list/appservice/{networkID}/{roomID}", Name: "delete_published_in", Auth: user, Limit: "directory",
			Handler: e.putPublishedIn},
		{Method: post, Path: v3 + "/search", Name: "search", Auth: user, Limit: "directory", Large: true, Handler: e.searchEvents},
		{Method: get, Path: v3 + "/publicRooms", Name: "public_rooms", Auth: nobody, Limit: "directory", Large: true, Handler: e.publicRooms},
		{Method: post, Path: v3 + "/publicRooms", Name: "public_rooms_search", Auth: user, Limit: "directory", Large: true, Handler: e.searchPublicRooms},
	}...)
}
