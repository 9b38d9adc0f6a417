package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// userAndRoom reads the user and the room of a path; without a room in it, the room is empty.
func userAndRoom(r *httputil.Request) (id.UserID, id.RoomID, error) {
	user, err := self(r)
	if err != nil || r.Var("roomId") == "" {
		return user, "", err
	}
	room, err := r.RoomID("roomId")
	return user, room, err
}

// accountDataOf reads the path of an endpoint of account data.
func accountDataOf(r *httputil.Request) (id.UserID, id.RoomID, string, error) {
	user, room, err := userAndRoom(r)
	if err != nil {
		return "", "", "", err
	}
	dataType := r.Var("type")
	if len(dataType) > id.MaxLength {
		return "", "", "", mxerr.InvalidParam("a type of account data may have %d bytes", id.MaxLength)
	}
	return user, room, dataType, nil
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

func (s *routes) accountData(
	ctx context.Context, user id.UserID, room id.RoomID, dataType string,
) (json.RawMessage, error) {
	return s.AccountData.Get(ctx, user, room, dataType)
}

// putAccountData is PUT of account_data/{type}, of the user or of a room.
func (s *routes) putAccountData(ctx context.Context, r *httputil.Request) (any, error) {
	user, room, dataType, err := accountDataOf(r)
	if err != nil {
		return nil, err
	}
	if dataType == "" {
		return nil, mxerr.InvalidParam("account data must have a type")
	}
	if dataType == accountdata.FullyRead || dataType == storage.PushRules {
		return nil, mxerr.New(http.StatusMethodNotAllowed, "M_BAD_JSON", "%s has endpoints of its own: it cannot be set here", dataType)
	}
	content, err := r.Content()
	if err != nil {
		return nil, err
	}
	return nil, s.AccountData.Put(ctx, user, room, dataType, content)
}
