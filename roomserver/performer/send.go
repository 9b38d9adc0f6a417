package performer

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// SendEvent puts an event of a local user into a room (Client-Server API, § Sending events to a room, § Redactions).
func (p *Performer) SendEvent(ctx context.Context, req api.SendEventRequest) (api.SendEventResponse, error) {
	res, err := p.sendEvent(ctx, req)
	return res, visibility.Hide(ctx, p.Reader, req.RoomID, req.Sender, err)
}

func (p *Performer) sendEvent(ctx context.Context, req api.SendEventRequest) (api.SendEventResponse, error) {
	if err := p.checkContent(ctx, &req); err != nil {
		return api.SendEventResponse{}, err
	}
	if req.Suspended && req.Redacts == "" {
		return api.SendEventResponse{}, mxerr.Suspended()
	}
	proto := input.Proto{DeviceID: req.DeviceID, TransactionID: req.TransactionID, Proto: pdu.Proto{
		Type: req.Type, StateKey: req.StateKey, Sender: req.Sender, Content: req.Content, Redacts: req.Redacts, OriginServerTS: req.Timestamp}}
	eventID, err := p.Input.Local(ctx, req.RoomID, req.RequestKey, func(ctx context.Context, v input.View) (_ []input.Proto, _ id.EventID, err error) {
		proto := proto
		if req.Redacts != "" {
			if err := p.checkRedaction(ctx, v, &req); err != nil {
				return nil, "", err
			}
		}
		if req.StateKey == nil {
			return []input.Proto{proto}, "", p.checkRelation(ctx, v, &req)
		}
		if req.Type == pdu.TypeMember {
			if proto.Content, err = p.memberContent(ctx, v, &req); err != nil {
				return nil, "", err
			}
		}
		same, err := unchanged(ctx, v, &proto)
		if same != "" || err != nil {
			return nil, same, err
		}
		return []input.Proto{proto}, "", nil
	})
	if err == nil && (req.StateKey != nil && req.Type == typeGuestAccess || req.Redacts != "") {
		select {
		case p.guestsOut <- struct{}{}:
		default: // it is awake
		}
	}
	return api.SendEventResponse{EventID: eventID}, err
}

const authorisedVia = "join_authorised_via_users_server"

// memberContent makes the content of a member event that a client sends as state, for which the same holds as for the endpoints that
// change memberships: who authorises a join is for the server to say, which signs for it.
func (p *Performer) memberContent(ctx context.Context, v input.View, req *api.SendEventRequest) (json.RawMessage, error) {
	content, err := pdu.CanonicalJSON(v.Room().Version, req.Content)
	if err != nil || content[0] != '{' {
		return content, err // what is no object is refused where the event is built
	}
	content = pdu.Without(content, authorisedVia)
	target, err := id.ParseUserID(*req.StateKey)
	if err != nil {
		return nil, mxerr.InvalidParam("the state key of %s: %v", pdu.TypeMember, err)
	}
	membership, _ := pdu.String(pdu.Member(content, "membership"))
	switch {
	case membership == invite && target.Server() != p.ServerName:
		return nil, notFederated(target)
	case membership != join && membership != leave || target != req.Sender:
		return content, nil
	}
	now, err := v.One(ctx, pdu.TypeMember, string(target))
	if err == nil && membership == leave && p.isNotice(now) {
		err = cannotLeave()
	}
	if err != nil || membership == leave || now != nil && now.PDU.Membership() == join {
		return content, err
	}
	authoriser, err := p.mayJoin(ctx, v, now, target, req.Guest)
	if err != nil || authoriser == "" {
		return content, err
	}
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(content, &all); err != nil {
		return nil, err
	}
	if all[authorisedVia], err = json.Marshal(authoriser); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// unchanged finds the state event that says what this one would say again, of a sender who is still in the room.
func unchanged(ctx context.Context, v input.View, p *input.Proto) (id.EventID, error) {
	key, member := auth.Key{Type: p.Type, StateKey: *p.StateKey}, auth.Key{Type: pdu.TypeMember, StateKey: string(p.Sender)}
	found, err := v.State(ctx, key, member)
	now, sender := found[key], found[member]
	if err != nil || now == nil || now.RedactedBy != "" || now.PDU.Sender() != p.Sender || sender == nil || sender.PDU.Membership() != join {
		return "", err
	}
	content, err := pdu.CanonicalJSON(v.Room().Version, p.Content)
	if err != nil || !bytes.Equal(content, now.PDU.Content()) {
		return "", nil // content with an error is refused later, where the event is built
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
			eventID, err := id.ParseEventID(target.Str)
			if err != nil {
				return mxerr.InvalidParam("redacts: %v", err)
			}
			req.Redacts = eventID
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
	if target == nil || target.RoomNID != v.Room().NID || !target.InTimeline {
		return mxerr.NotFound("there is no event %s in this room", req.Redacts)
	}
	if target.PDU.Is(pdu.TypeCreate, "") {
		return mxerr.Forbidden("the m.room.create event of a room cannot be redacted")
	}
	if target.PDU.Sender() == req.Sender {
		return nil
	}
	if req.Suspended {
		return mxerr.Suspended()
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

// checkRelation refuses a second annotation of the same kind (§ Avoiding duplicate annotations), and a thread on an event that itself
// relates to another (§ Validation of m.thread relationships).
func (p *Performer) checkRelation(ctx context.Context, v input.View, req *api.SendEventRequest) error {
	r := pdu.RelationIn(req.Content)
	switch r.Type {
	case pdu.RelAnnotation:
		same := func(e *pdu.Event) bool { return e.Sender() == req.Sender && e.Type() == req.Type && e.Relation() == r }
		has, err := p.Storage.Annotated(ctx, v.Room().NID, r, req.Sender, req.Type)
		if err != nil {
			return err
		}
		if has || v.Appended(same) {
			return mxerr.New(http.StatusBadRequest, "M_DUPLICATE_ANNOTATION", "you have this annotation on %s already: redact it first", r.Parent)
		}
	case pdu.RelThread:
		found, err := p.Reader.EventsByID(ctx, []id.EventID{r.Parent}, true)
		if err != nil {
			return err
		}
		if root := found[r.Parent]; root != nil && root.RoomNID == v.Room().NID && root.PDU.Relation().Type != "" {
			return mxerr.New(http.StatusBadRequest, "M_UNKNOWN", "no thread can begin at %s, which itself relates to another event", r.Parent)
		}
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
	wanted, err := aliasesIn(req.Content)
	if err != nil || len(wanted) == 0 {
		return err
	}
	present, err := p.Reader.One(ctx, room.NID, room.Root, keyCanonicalAlias)
	if err != nil {
		return err
	}
	var listed []string
	if present != nil {
		// What is listed already need not be valid, so neither need its form.
		listed, _ = aliasesIn(present.PDU.Content())
	}
	for _, s := range wanted {
		if slices.Contains(listed, s) {
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

// aliasesIn lists alias and alt_aliases. Members are read by their exact names, and of duplicates the last one counts, as in the event
// that is made of the content.
func aliasesIn(content []byte) ([]string, error) {
	var c map[string]json.RawMessage
	if err := json.Unmarshal(content, &c); err != nil {
		return nil, mxerr.BadJSON("the content of m.room.canonical_alias is not an object")
	}
	var alias string
	var listed []string
	for name, into := range map[string]any{"alias": &alias, "alt_aliases": &listed} {
		if c[name] == nil {
			continue
		}
		if err := json.Unmarshal(c[name], into); err != nil {
			return nil, mxerr.BadJSON("%s of m.room.canonical_alias has the wrong type", name)
		}
	}
	if alias != "" {
		listed = append(listed, alias)
	}
	return listed, nil
}
