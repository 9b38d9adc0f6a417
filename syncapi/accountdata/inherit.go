package accountdata

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Inherit copies what a user has set for a room to the one that replaces it: its tags, its push rules, and that it is a
// direct chat (Client-Server API, § Room Upgrades, § Server behaviour). What would be beyond the user's quota is left
// out: the upgrade goes on.
func (s *Service) Inherit(ctx context.Context, user id.UserID, from, to id.RoomID) error {
	const most = 3
	return s.write(ctx, "settings of a replaced room", most,
		func(ctx context.Context, tx *sqlutil.Tx, w *writing) error {
			tags, err := w.read(ctx, tx, key{user, from, Tags})
			if err != nil {
				return err
			}
			err = w.inherit(ctx, tx, key{user, to, Tags}, func(present json.RawMessage) (json.RawMessage, error) {
				if present != nil {
					return nil, nil
				}
				return tags, checkTags(nil, tags)
			})
			if err != nil {
				return err
			}
			err = w.inherit(ctx, tx, key{user, "", direct}, func(content json.RawMessage) (json.RawMessage, error) {
				return inheritDirect(content, from, to)
			})
			if err != nil {
				return err
			}
			rules := key{user, "", storage.PushRules}
			content, err := w.read(ctx, tx, rules)
			if err != nil || content == nil {
				return err
			}
			if content, err = inheritRules(content, from, to); content != nil {
				w.put(rules, content)
			}
			return err
		})
}

// inherit changes an entry, unless it would be beyond the bounds.
func (w *writing) inherit(ctx context.Context, tx *sqlutil.Tx, k key, change changing) error {
	err := w.change(ctx, tx, k, change, w.within(MaxBytes))
	if mxerr.Is(err, "M_TOO_LARGE") || mxerr.Is(err, "M_INVALID_PARAM") {
		return nil
	}
	return err
}

// inheritRules adds a room rule for the new room where there is one for the old one; nil if nothing changes.
func inheritRules(content json.RawMessage, from, to id.RoomID) (json.RawMessage, error) {
	document := new(pushrules.Document)
	if err := json.Unmarshal(content, document); err != nil {
		return nil, err
	}
	if !document.Inherit(from, to) {
		return nil, nil
	}
	content, err := document.Encode(len(content))
	if mxerr.Is(err, "M_TOO_LARGE") {
		return nil, nil // there is no place for another rule
	}
	return content, err
}

// inheritDirect lists the new room wherever the old one is listed; nil if that is nowhere, or if the content is not as
// specified.
func inheritDirect(content json.RawMessage, from, to id.RoomID) (json.RawMessage, error) {
	var chats map[id.UserID][]id.RoomID
	if json.Unmarshal(content, &chats) != nil {
		return nil, nil
	}
	changed := false
	for user, rooms := range chats {
		if slices.Contains(rooms, from) && !slices.Contains(rooms, to) {
			chats[user], changed = append(rooms, to), true
		}
	}
	if !changed {
		return nil, nil
	}
	return json.Marshal(chats)
}
