package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Types of account data that have endpoints of their own.
const (
	fullyRead = "m.fully_read"
	tags      = "m.tag"
)

// accountDataOf reads the path of an endpoint of account data; without a room in it, the room is empty.
func accountDataOf(r *httputil.Request) (user id.UserID, room id.RoomID, dataType string, err error) {
	if user, err = self(r); err != nil {
		return
	}
	if r.Var("roomId") != "" {
		if room, err = r.RoomID("roomId"); err != nil {
			return
		}
	}
	if dataType = r.Var("type"); len(dataType) > id.MaxLength {
		err = mxerr.InvalidParam("a type of account data may have %d bytes", id.MaxLength)
	}
	return
}

// getAccountData is GET of account_data/{type}, of the user or of a room.
func (s *routes) getAccountData(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, dataType, err := accountDataOf(r)
	if err != nil {
		return nil, err
	}
	if dataType == storage.PushRules && room == "" {
		document, err := s.Rules.Get(ctx, user)
		if err != nil {
			return nil, err
		}
		content, err := answer.PushRulesContent(document, user)
		return json.RawMessage(content), err
	}
	content, err := s.accountData(ctx, user, room, dataType)
	if err != nil {
		return nil, err
	}
	if content == nil {
		return nil, mxerr.NotFound("there is no account data of type %q", dataType)
	}
	return content, nil
}

func (s *routes) accountData(ctx context.Context, user id.UserID, room id.RoomID, dataType string) (content json.RawMessage, err error) {
	err = s.Storage.Read(ctx, "account data", func(ctx context.Context, tx *sqlutil.Tx) error {
		content, err = s.Storage.AccountDataOne(ctx, tx, user, room, dataType)
		return err
	})
	return content, err
}

// putAccountData is PUT of account_data/{type}, of the user or of a room.
func (s *routes) putAccountData(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, dataType, err := accountDataOf(r)
	if err != nil {
		return nil, err
	}
	if dataType == fullyRead || dataType == storage.PushRules {
		return nil, mxerr.New(http.StatusMethodNotAllowed, "M_BAD_JSON", "%s has endpoints of its own: it cannot be set here", dataType)
	}
	content, err := r.Content()
	if err != nil {
		return nil, err
	}
	return nil, s.changeAccountData(ctx, user, room, dataType, func(json.RawMessage) (json.RawMessage, error) { return content, nil })
}

// changeAccountData replaces one entry of account data by what change makes of it. Changes come one after the other. change may
// return nil to leave things as they are.
func (s *routes) changeAccountData(ctx context.Context, user id.UserID, room id.RoomID, dataType string, change func(json.RawMessage) (json.RawMessage, error)) error {
	return s.Storage.Write(ctx, "account data", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		old, err := s.Storage.AccountDataOne(ctx, tx, user, room, dataType)
		if err != nil {
			return nil, err
		}
		content, err := change(old)
		if err != nil || content == nil {
			return new(storage.Changes), err
		}
		return &storage.Changes{AccountData: []storage.AccountData{{UserID: user, RoomID: room, Type: dataType, Pos: pos, Content: content}}}, nil
	})
}

// getTags is GET /user/{userId}/rooms/{roomId}/tags.
func (s *routes) getTags(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, _, err := accountDataOf(r)
	if err != nil {
		return nil, err
	}
	content, err := s.accountData(ctx, user, room, tags)
	if err != nil {
		return nil, err
	}
	if content == nil || !gjson.GetBytes(content, "tags").IsObject() {
		content = json.RawMessage(`{"tags":{}}`)
	}
	return content, nil
}

// tagOf reads the path of an endpoint of one tag.
func tagOf(r *httputil.Request) (user id.UserID, room id.RoomID, tag string, err error) {
	if user, room, _, err = accountDataOf(r); err != nil {
		return
	}
	if tag = r.Var("tag"); len(tag) > id.MaxLength {
		err = mxerr.InvalidParam("the name of a tag may have %d bytes", id.MaxLength)
	}
	return
}

// putTag is PUT /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *routes) putTag(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, tag, err := tagOf(r)
	if err != nil {
		return nil, err
	}
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	if order := gjson.GetBytes(content, "order"); order.Exists() && order.Type != gjson.Number {
		return nil, mxerr.BadJSON("order must be a number from 0 to 1")
	}
	return nil, s.changeTags(ctx, user, room, func(all map[string]json.RawMessage) { all[tag] = content })
}

// deleteTag is DELETE /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *routes) deleteTag(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, tag, err := tagOf(r)
	if err != nil {
		return nil, err
	}
	return nil, s.changeTags(ctx, user, room, func(all map[string]json.RawMessage) { delete(all, tag) })
}

func (s *routes) changeTags(ctx context.Context, user id.UserID, room id.RoomID, change func(map[string]json.RawMessage)) error {
	return s.changeAccountData(ctx, user, room, tags, func(old json.RawMessage) (json.RawMessage, error) { return ChangeTags(old, change) })
}

// ChangeTags changes the tags in the content of m.tag, which may be nil (Client-Server API, § Room Tagging).
func ChangeTags(old json.RawMessage, change func(map[string]json.RawMessage)) (json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	if t := gjson.GetBytes(old, "tags"); t.IsObject() {
		if err := json.Unmarshal([]byte(t.Raw), &all); err != nil {
			return nil, err
		}
	}
	change(all)
	return httputil.Marshal(map[string]any{"tags": all})
}
