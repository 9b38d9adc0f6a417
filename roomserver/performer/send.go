package performer

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// SendEvent puts an event of a local user into a room (Client-Server API, § Sending events to a room, § Redactions).
func (p *Performer) SendEvent(ctx context.Context, req api.SendEventRequest) (api.SendEventResponse, error) {
	if err := p.checkContent(ctx, &req); err != nil {
		return api.SendEventResponse{}, err
	}
	proto := input.Proto{DeviceID: req.DeviceID, TransactionID: req.TransactionID, Proto: pdu.Proto{
		Type: req.Type, StateKey: req.StateKey, Sender: req.Sender, Content: req.Content, Redacts: req.Redacts, OriginServerTS: req.Timestamp}}
	eventID, err := p.Input.Local(ctx, req.RoomID, req.RequestKey, func(ctx context.Context, v input.View) ([]input.Proto, id.EventID, error) {
		if req.Redacts != "" {
			if err := p.checkRedaction(ctx, v, &req); err != nil {
				return nil, "", err
			}
		}
		if req.StateKey != nil {
			if same, err := unchanged(ctx, v, &req); same != "" || err != nil {
				return nil, same, err
			}
		}
		return []input.Proto{proto}, "", nil
	})
	return api.SendEventResponse{EventID: eventID}, err
}

// unchanged finds the state event that says what this one would say again.
func unchanged(ctx context.Context, v input.View, req *api.SendEventRequest) (id.EventID, error) {
	now, err := v.One(ctx, req.Type, *req.StateKey)
	if err != nil || now == nil || now.PDU.Sender() != req.Sender {
		return "", err
	}
	var a, b any
	if json.Unmarshal(req.Content, &a) != nil || json.Unmarshal(now.PDU.Content(), &b) != nil {
		return "", nil // the content is refused later, where it is built
	}
	given, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	stored, err := json.Marshal(b)
	if err != nil || !bytes.Equal(given, stored) {
		return "", err
	}
	return now.PDU.ID(), nil
}

// checkContent refuses what servers do not let their own users send, although the authorization rules would.
func (p *Performer) checkContent(ctx context.Context, req *api.SendEventRequest) error {
	switch {
	case req.Type == pdu.TypeCreate && req.StateKey != nil:
		return mxerr.Forbidden("a room has one m.room.create event only: create another room")
	case req.Type == pdu.TypePowerLevels && req.StateKey != nil:
		return checkLevels(req.Content)
	case req.Type == "m.room.canonical_alias" && req.StateKey != nil && *req.StateKey == "":
		return p.checkCanonicalAlias(ctx, req)
	case req.Type == pdu.TypeRedaction && req.Redacts == "" && req.StateKey == nil:
		if target := gjson.GetBytes(req.Content, "redacts"); target.Type == gjson.String {
			req.Redacts = id.EventID(target.Str)
		}
	}
	return nil
}

// checkRedaction wants a target in the same room, and for the events of others the level for it (§ Redactions, Server behaviour).
func (p *Performer) checkRedaction(ctx context.Context, v input.View, req *api.SendEventRequest) error {
	found, err := p.Reader.EventsByID(ctx, []id.EventID{req.Redacts}, false)
	if err != nil {
		return err
	}
	target := found[req.Redacts]
	if target == nil || target.RoomNID != v.Room().NID || target.Outcome == storage.Rejected {
		return mxerr.NotFound("there is no event %s in this room", req.Redacts)
	}
	if target.PDU.Sender() == req.Sender {
		return nil
	}
	levels, err := input.PowerLevels(ctx, v)
	if err != nil {
		return err
	}
	if own, needed := levels.User(req.Sender), levels.Redact(); own < needed {
		return mxerr.Forbidden("redacting the events of others needs power level %d, yours is %d", needed, own)
	}
	return nil
}

// checkLevels wants integers, as every room version allows them. Strings are for backwards compatibility only.
func checkLevels(content []byte) error {
	bad := ""
	check := func(name string, v gjson.Result) {
		if v.Type != gjson.Number || strings.ContainsAny(v.Raw, ".eE") {
			bad = name
		}
	}
	gjson.ParseBytes(content).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "users", "events", "notifications":
			if !value.IsObject() {
				bad = key.Str
			}
			value.ForEach(func(name, level gjson.Result) bool { check(key.Str+"."+name.Str, level); return true })
		case "users_default", "events_default", "state_default", "ban", "kick", "redact", "invite":
			check(key.Str, value)
		}
		return true
	})
	if bad != "" {
		return mxerr.BadJSON("the power level %s must be an integer", bad)
	}
	return nil
}

// checkCanonicalAlias wants aliases that are new in the event to lead to the room (§ m.room.canonical_alias).
func (p *Performer) checkCanonicalAlias(ctx context.Context, req *api.SendEventRequest) error {
	room, err := p.Reader.Room(ctx, req.RoomID)
	if err != nil || room == nil {
		return err
	}
	wanted := aliasesIn(req.Content)
	if len(wanted) == 0 {
		return nil
	}
	present, err := p.Reader.One(ctx, room.NID, room.Root, keyCanonicalAlias)
	if err != nil {
		return err
	}
	already := map[string]bool{}
	if present != nil {
		for _, alias := range aliasesIn(present.PDU.Content()) {
			already[alias] = true
		}
	}
	for _, s := range wanted {
		if already[s] {
			continue
		}
		alias, err := id.ParseRoomAlias(s)
		if err != nil {
			return mxerr.InvalidParam("%v", err)
		}
		var found *storage.Alias
		if alias.Server() == p.ServerName {
			if found, err = p.Storage.Alias(ctx, alias); err != nil {
				return err
			}
		}
		if found == nil || found.RoomID != req.RoomID {
			return mxerr.New(http.StatusBadRequest, "M_BAD_ALIAS", "the alias %s does not lead to this room: create it first", alias)
		}
	}
	return nil
}

func aliasesIn(content []byte) []string {
	var all []string
	if v := gjson.GetBytes(content, "alias"); v.Type == gjson.String && v.Str != "" {
		all = append(all, v.Str)
	}
	for _, v := range gjson.GetBytes(content, "alt_aliases").Array() {
		if v.Type == gjson.String {
			all = append(all, v.Str)
		}
	}
	return all
}
