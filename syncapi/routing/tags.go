package routing

import (
	"context"
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
)

// getTags is GET /user/{userId}/rooms/{roomId}/tags.
func (s *routes) getTags(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, err := userAndRoom(r)
	if err != nil {
		return nil, err
	}
	content, err := s.accountData(ctx, user, room, accountdata.Tags)
	if err != nil {
		return nil, err
	}
	if content == nil || !gjson.GetBytes(content, "tags").IsObject() {
		content = json.RawMessage(`{"tags":{}}`)
	}
	return content, nil
}

// tagOf reads the path of an endpoint of one tag.
func tagOf(r *httputil.Request) (id.UserID, id.RoomID, string, error) {
	user, room, err := userAndRoom(r)
	if err != nil {
		return "", "", "", err
	}
	tag := r.Var("tag")
	if len(tag) > accountdata.MaxTagName {
		return "", "", "", mxerr.InvalidParam("the name of a tag may have %d bytes", accountdata.MaxTagName)
	}
	return user, room, tag, nil
}

// putTag is PUT /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *routes) putTag(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, tag, err := tagOf(r)
	if err != nil {
		return nil, err
	}
	if tag == "" {
		return nil, mxerr.InvalidParam("a tag must have a name")
	}
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	if order := gjson.GetBytes(content, "order"); order.Exists() && order.Type != gjson.Number {
		return nil, mxerr.BadJSON("order must be a number from 0 to 1")
	}
	return nil, s.AccountData.PutTag(ctx, user, room, tag, content)
}

// deleteTag is DELETE /user/{userId}/rooms/{roomId}/tags/{tag}.
func (s *routes) deleteTag(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, tag, err := tagOf(r)
	if err != nil {
		return nil, err
	}
	return nil, s.AccountData.DeleteTag(ctx, user, room, tag)
}
