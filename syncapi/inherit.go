package syncapi

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/routing"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// inheritRoom copies what a user has set for a room to the one that replaces it: its tags, its push rules, and that it is a direct chat
// (Client-Server API, § Room Upgrades, § Server behaviour).
func inheritRoom(ctx context.Context, db *storage.Database, req *api.InheritRoomRequest) error {
	const most = 3
	return db.Write(ctx, "settings of a replaced room", most, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		changes := new(storage.Changes)
		put := func(room id.RoomID, dataType string, content json.RawMessage) {
			changes.AccountData = append(changes.AccountData, storage.AccountData{UserID: req.UserID, RoomID: room, Type: dataType, Content: content,
				Pos: pos + int64(len(changes.AccountData))})
		}
		read := func(room id.RoomID, dataType string) (json.RawMessage, error) {
			return db.AccountDataOne(ctx, tx, req.UserID, room, dataType)
		}
		tags, err := read(req.From, "m.tag")
		if err != nil {
			return nil, err
		}
		if tags != nil {
			present, err := read(req.To, "m.tag")
			if err != nil {
				return nil, err
			}
			if present == nil {
				put(req.To, "m.tag", tags)
			}
		}
		for dataType, change := range map[string]func(json.RawMessage, *api.InheritRoomRequest) (json.RawMessage, error){
			storage.PushRules: inheritRules, "m.direct": inheritDirect} {
			content, err := read("", dataType)
			if err != nil {
				return nil, err
			}
			if content == nil {
				continue
			}
			if content, err = change(content, req); err != nil {
				return nil, err
			}
			if content != nil {
				put("", dataType, content)
			}
		}
		return changes, nil
	})
}

// inheritRules adds a room rule for the new room where there is one for the old one; nil if nothing changes.
func inheritRules(content json.RawMessage, req *api.InheritRoomRequest) (json.RawMessage, error) {
	document := new(pushrules.Document)
	if err := json.Unmarshal(content, document); err != nil {
		return nil, err
	}
	if !document.Inherit(req.From, req.To) {
		return nil, nil
	}
	content, err := document.Encode(len(content))
	if mxerr.Is(err, "M_TOO_LARGE") {
		return nil, nil // there is no place for another rule
	}
	return content, err
}

// inheritDirect lists the new room wherever the old one is listed; nil if that is nowhere, or if the content is not as specified.
func inheritDirect(content json.RawMessage, req *api.InheritRoomRequest) (json.RawMessage, error) {
	var direct map[id.UserID][]id.RoomID
	if json.Unmarshal(content, &direct) != nil {
		return nil, nil
	}
	changed := false
	for user, rooms := range direct {
		if slices.Contains(rooms, req.From) && !slices.Contains(rooms, req.To) {
			direct[user], changed = append(rooms, req.To), true
		}
	}
	if !changed {
		return nil, nil
	}
	return json.Marshal(direct)
}

// tagRoom adds a tag (Client-Server API, § Room Tagging).
func tagRoom(ctx context.Context, db *storage.Database, req *api.TagRoomRequest) error {
	return db.Write(ctx, "tag of a room", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		content, err := db.AccountDataOne(ctx, tx, req.UserID, req.RoomID, "m.tag")
		if err != nil {
			return nil, err
		}
		content, err = routing.ChangeTags(content, func(all map[string]json.RawMessage) {
			if all[req.Tag] == nil {
				all[req.Tag] = json.RawMessage("{}")
			}
		})
		if err != nil {
			return nil, err
		}
		return &storage.Changes{AccountData: []storage.AccountData{{UserID: req.UserID, RoomID: req.RoomID, Type: "m.tag", Content: content, Pos: pos}}}, nil
	})
}
