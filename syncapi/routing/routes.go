// Package routing has the endpoints of syncapi: /sync, and all that only /sync shows.
package routing

import (
	"net/http"

	lru "github.com/hashicorp/golang-lru/v2"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/receipts"
	"github.com/matrix-org/dendrite/syncapi/rules"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/todevice"
)

// Deps are what the endpoints use.
type Deps struct {
	Engine      *answer.Engine
	Storage     *storage.Database
	Client      *clientapi.ClientAPI
	AccountData *accountdata.Service
	Receipts    *receipts.Service
	ToDevice    *todevice.Service
	Rules       *rules.Store
	// Presence says that presence is switched on.
	Presence bool
}

type routes struct {
	Deps
	filters *lru.Cache[filterKey, *filter.Filter]
}

// keptFilters is how many filters stay in memory, parsed.
const keptFilters = 500

// Names of rate limits.
const (
	limitAccountData = "account_data"
	limitEphemeral   = "ephemeral"
	limitToDevice    = "to_device"
)

// New lists the endpoints.
func New(deps Deps) ([]httputil.Route, error) {
	filters, err := lru.New[filterKey, *filter.Filter](keptFilters)
	if err != nil {
		return nil, err
	}
	s := &routes{deps, filters}
	const v3 = "/_matrix/client/{r0|v3}"
	const userRoom = v3 + "/user/{userId}/rooms/{roomId}"
	const dehydrated = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events"
	const rule = v3 + "/pushrules/global/{kind}/{ruleId}"
	guest, user := httputil.AuthGuest, httputil.AuthUser // guests may use what § Guest Access lists
	return []httputil.Route{
		{Method: http.MethodGet, Path: v3 + "/sync", Name: "sync", Auth: guest, Handler: s.sync},
		{Method: http.MethodGet, Path: v3 + "/keys/changes", Name: "keys_changes", Auth: user, Large: true,
			Handler: s.keysChanges},

		{Method: http.MethodGet, Path: v3 + "/rooms/{roomId}/initialSync", Name: "room_initial_sync", Auth: guest, Large: true, Handler: s.roomInitialSync},
		{Method: http.MethodGet, Path: v3 + "/initialSync", Name: "initial_sync", Auth: user, Large: true, Handler: s.initialSync},
		{Method: http.MethodGet, Path: v3 + "/events", Name: "events", Auth: guest, Handler: s.events},
		{Method: http.MethodGet, Path: v3 + "/events/{eventId}", Name: "old_event", Auth: user, Handler: s.event},
		{Method: http.MethodPut, Path: v3 + "/presence/{userId}/status", Name: "put_presence", Auth: user, Limit: limitEphemeral, Handler: s.putPresence},
		{Method: http.MethodGet, Path: v3 + "/presence/{userId}/status", Name: "get_presence", Auth: user, Handler: s.getPresence},

		{Method: http.MethodPost, Path: v3 + "/user/{userId}/filter", Name: "put_filter", Auth: user, Limit: limitAccountData, Handler: s.putFilter},
		{Method: http.MethodGet, Path: v3 + "/user/{userId}/filter/{filterId}", Name: "get_filter", Auth: user, Handler: s.getFilter},

		{Method: http.MethodGet, Path: v3 + "/user/{userId}/account_data/{type}", Name: "get_account_data", Auth: user, Large: true, Handler: s.getAccountData},
		{Method: http.MethodPut, Path: v3 + "/user/{userId}/account_data/{type}", Name: "put_account_data", Auth: user, Limit: limitAccountData, Handler: s.putAccountData},
		{Method: http.MethodGet, Path: userRoom + "/account_data/{type}", Name: "get_room_account_data", Auth: user, Large: true, Handler: s.getAccountData},
		{Method: http.MethodPut, Path: userRoom + "/account_data/{type}", Name: "put_room_account_data", Auth: user, Limit: limitAccountData, Handler: s.putAccountData},

		{Method: http.MethodGet, Path: userRoom + "/tags", Name: "get_tags", Auth: user, Handler: s.getTags},
		{Method: http.MethodPut, Path: userRoom + "/tags/{tag}", Name: "put_tag", Auth: user, Limit: limitAccountData, Handler: s.putTag},
		{Method: http.MethodDelete, Path: userRoom + "/tags/{tag}", Name: "delete_tag", Auth: user, Limit: limitAccountData, Handler: s.deleteTag},

		{Method: http.MethodGet, Path: v3 + "/pushers", Name: "get_pushers", Auth: user, Handler: s.getPushers},
		{Method: http.MethodPost, Path: v3 + "/pushers/set", Name: "set_pusher", Auth: user, Limit: limitAccountData, Handler: s.setPusher},
		{Method: http.MethodGet, Path: v3 + "/notifications", Name: "notifications", Auth: user, Large: true, Handler: s.notifications},

		{Method: http.MethodGet, Path: v3 + "/pushrules/", Name: "get_push_rules", Auth: user, Large: true, Handler: s.getPushRules},
		{Method: http.MethodGet, Path: v3 + "/pushrules/global/", Name: "get_global_push_rules", Auth: user, Large: true, Handler: s.getGlobalPushRules},
		{Method: http.MethodGet, Path: v3 + "/pushrules/global/{kind}/", Name: "get_push_rules_of_kind", Auth: user, Handler: s.getPushRulesOfKind},
		{Method: http.MethodGet, Path: rule, Name: "get_push_rule", Auth: user, Handler: s.getPushRule},
		{Method: http.MethodPut, Path: rule, Name: "put_push_rule", Auth: user, Limit: limitAccountData, Handler: s.putPushRule},
		{Method: http.MethodDelete, Path: rule, Name: "delete_push_rule", Auth: user, Limit: limitAccountData, Handler: s.deletePushRule},
		{Method: http.MethodGet, Path: rule + "/enabled", Name: "get_push_rule_enabled", Auth: user, Handler: s.getPushRuleEnabled},
		{Method: http.MethodPut, Path: rule + "/enabled", Name: "put_push_rule_enabled", Auth: user, Limit: limitAccountData, Handler: s.putPushRuleEnabled},
		{Method: http.MethodGet, Path: rule + "/actions", Name: "get_push_rule_actions", Auth: user, Handler: s.getPushRuleActions},
		{Method: http.MethodPut, Path: rule + "/actions", Name: "put_push_rule_actions", Auth: user, Limit: limitAccountData, Handler: s.putPushRuleActions},

		{Method: http.MethodPost, Path: v3 + "/rooms/{roomId}/receipt/{receiptType}/{eventId}", Name: "receipt", Auth: user, Limit: limitEphemeral, Handler: s.receipt},
		{Method: http.MethodPost, Path: v3 + "/rooms/{roomId}/read_markers", Name: "read_markers", Auth: user, Limit: limitEphemeral, Handler: s.readMarkers},

		{Method: http.MethodPut, Path: v3 + "/sendToDevice/{eventType}/{txnId}", Name: "send_to_device", Auth: guest,
			Limit: limitToDevice, MaxBody: maxToDevice, Handler: s.sendToDevice},
		{Method: http.MethodGet, Path: dehydrated, Name: "dehydrated_events", Auth: user, Large: true,
			Handler: s.dehydratedEvents},
		{Method: http.MethodPost, Path: dehydrated, Name: "post_dehydrated_events", Auth: user, Large: true,
			Handler: s.postDehydratedEvents},
	}, nil
}

// self is the user of the path, who must be the caller.
func self(r *httputil.Request) (id.UserID, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return "", err
	}
	if user != r.Caller.UserID {
		return "", mxerr.Forbidden("you are %s: what belongs to %s is theirs alone", r.Caller.UserID, user)
	}
	return user, nil
}
