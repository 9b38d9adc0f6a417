package routing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

func viewer(r *httputil.Request) roomserver.Viewer {
	return roomserver.Viewer{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest}
}

// newKey is the request key of a request without a transaction id.
func newKey() roomserver.RequestKey { return roomserver.RequestKey(rand.Text()) }

// txnKey is the request key of a request that the client may repeat.
func txnKey(r *httputil.Request, endpoint ...string) roomserver.RequestKey {
	return roomserver.RequestKey(r.TransactionKey(endpoint...))
}

// maxTimestamp is the greatest number that an event may have (Appendices, § Canonical JSON).
const maxTimestamp = 1<<53 - 1

// timestamp is the ts parameter, in ms; 0 if it is not given. It is for application services only (Application Service API,
// § Timestamp massaging). The first moment of the epoch becomes the next.
func timestamp(r *httputil.Request) (int64, error) {
	given := r.Query("ts")
	if r.Caller.AppService == "" || given == "" {
		return 0, nil
	}
	ts, err := strconv.ParseInt(given, 10, 64)
	if err != nil || ts < 0 || ts > maxTimestamp {
		return 0, mxerr.InvalidParam("ts must be a number of ms of at least 0 and at most %d, not %q", int64(maxTimestamp), given)
	}
	return max(ts, 1), nil
}

// via lists the servers that a client names to join or knock through; server_name is the parameter's older name.
func via(values url.Values) ([]id.ServerName, error) {
	var servers []id.ServerName
	for _, name := range append(values["via"], values["server_name"]...) {
		server, err := id.ParseServerName(name)
		if err != nil {
			return nil, mxerr.InvalidParam("via: %v", err)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// isNull tells whether a member of a body is absent or null, which is the same.
func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// object returns a member of a body that must be an object; nil if it is absent.
func object(name string, raw json.RawMessage) (json.RawMessage, error) {
	if isNull(raw) {
		return nil, nil
	}
	if raw[0] != '{' {
		return nil, mxerr.BadJSON("%s must be an object", name)
	}
	return raw, nil
}

// lacks is the error where a member that a body must have is absent, or null; must says what it has to be.
func lacks(body json.RawMessage, name, must string) error {
	if gjson.GetBytes(body, name).Exists() {
		return mxerr.BadJSON("%s must be %s", name, must)
	}
	return mxerr.MissingParam("%s is missing: it must be %s", name, must)
}

// oneOf fails for a parameter that is neither empty nor one of the values.
func oneOf(name, value string, values ...string) error {
	if value == "" {
		return nil
	}
	for _, v := range values {
		if v == value {
			return nil
		}
	}
	return mxerr.InvalidParam("%s must be one of %s, not %q", name, strings.Join(values, ", "), value)
}

// limit is the number of results that a client asks for: at least 1, at most most.
func limit(r *httputil.Request, usual, most int) (int, error) {
	n, err := r.QueryInt("limit", usual)
	return min(max(n, 1), most), err
}

// clientEvents writes events for the client that asks, in room that is lent.
func clientEvents(r *httputil.Request, events []roomserver.Event) json.RawMessage {
	return roomserver.MarshalClients(events, viewer(r), pdu.ClientOptions{WithRoomID: true}, r.Lend)
}

func clientEvent(r *httputil.Request, event *roomserver.Event) json.RawMessage {
	return event.AppendClient(nil, viewer(r), pdu.ClientOptions{WithRoomID: true})
}

// roomAlias is a variable of the path that must be an alias.
func roomAlias(r *httputil.Request) (id.RoomAlias, error) {
	alias, err := id.ParseRoomAlias(r.Var("alias"))
	if err != nil {
		return "", mxerr.InvalidParam("%v", err)
	}
	return alias, nil
}

// userIDOf is a member of a body that must be a user id.
func userIDOf(name, value string) (id.UserID, error) {
	if value == "" {
		return "", mxerr.MissingParam("%s is missing", name)
	}
	user, err := id.ParseUserID(value)
	if err != nil {
		return "", mxerr.InvalidParam("%s: %v", name, err)
	}
	return user, nil
}

// eventOf is the event of the path, and its room.
func eventOf(r *httputil.Request) (id.RoomID, id.EventID, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return "", "", err
	}
	event, err := r.EventID("eventID")
	return room, event, err
}

// contentOf is the room of the path, and the content that the body is of an event in it.
func contentOf(r *httputil.Request) (id.RoomID, json.RawMessage, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return "", nil, err
	}
	content, err := r.Content()
	return room, content, err
}

// roomNamed finds the room that the path names by id or alias, with the servers that are known to be in it where it is an alias.
func (e *endpoints) roomNamed(ctx context.Context, r *httputil.Request) (id.RoomID, []id.ServerName, error) {
	name := r.Var("roomIDOrAlias")
	if !strings.HasPrefix(name, "#") {
		room, err := id.ParseRoomID(name)
		if err != nil {
			err = mxerr.InvalidParam("%v", err)
		}
		return room, nil, err
	}
	alias, err := id.ParseRoomAlias(name)
	if err != nil {
		return "", nil, mxerr.InvalidParam("%v", err)
	}
	found, err := e.Unknown.Alias(ctx, unknown.ByOf(r), alias)
	return found.RoomID, found.Servers, err
}
