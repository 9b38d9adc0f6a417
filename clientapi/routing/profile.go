package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// profile is GET /profile/{userId}.
func (e *endpoints) profile(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	return e.profileOf(ctx, r, user)
}

// profileOf is all of a user's profile. A user of an application service may be made now.
func (e *endpoints) profileOf(ctx context.Context, r *httputil.Request, user id.UserID) (fields map[string]json.RawMessage, err error) {
	err = e.Unknown.User(ctx, unknown.ByOf(r), user, func(ctx context.Context) (err error) {
		fields, err = e.Profiles.Get(ctx, user)
		return err
	})
	return fields, err
}

// profileField is GET /profile/{userId}/{keyName}.
func (e *endpoints) profileField(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	key := r.Var("key")
	if err := profiles.CheckKey(key); err != nil {
		return nil, err
	}
	fields, err := e.profileOf(ctx, r, user)
	if err != nil {
		return nil, err
	}
	value, has := fields[key]
	switch {
	case has:
		return httputil.Object{key: value}, nil
	case unknown.ByOf(r).Service != "" && (key == "displayname" || key == "avatar_url"):
		// Bridges of mautrix for Go look for the name before they set one, and take M_NOT_FOUND for a fault.
		return httputil.Empty, nil
	}
	return nil, mxerr.NotFound("the profile of %s has no %s", user, key)
}

// putProfileField is PUT /profile/{userId}/{keyName}.
func (e *endpoints) putProfileField(ctx context.Context, r *httputil.Request) (any, error) {
	user, key, err := ownField(r)
	if err != nil {
		return nil, err
	}
	var body map[string]json.RawMessage
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	value, has := body[key]
	if !has {
		return nil, mxerr.MissingParam("the body must have the member %s", key)
	}
	return nil, e.setProfileField(ctx, user, key, value)
}

// deleteProfileField is DELETE /profile/{userId}/{keyName}.
func (e *endpoints) deleteProfileField(ctx context.Context, r *httputil.Request) (any, error) {
	user, key, err := ownField(r)
	if err != nil {
		return nil, err
	}
	return nil, e.setProfileField(ctx, user, key, nil)
}

func (e *endpoints) setProfileField(ctx context.Context, user id.UserID, key string, value json.RawMessage) error {
	if err := e.Profiles.Set(ctx, user, key, value); err != nil {
		return err
	}
	if key == profiles.KeyDisplayName || key == profiles.KeyAvatarURL {
		e.Propagate.Tell(ctx, user, profiles.PendingProfile)
	}
	return nil
}

// ownField is a field of the caller's own profile. Guests may change their name only.
func ownField(r *httputil.Request) (id.UserID, string, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return "", "", err
	}
	key := r.Var("key")
	if err := profiles.CheckKey(key); err != nil {
		return "", "", err
	}
	if user != r.Caller.UserID {
		return "", "", mxerr.Forbidden("you can change your own profile only")
	}
	if r.Caller.Guest && key != profiles.KeyDisplayName {
		return "", "", mxerr.New(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests can change their display name only: register an account")
	}
	return user, key, nil
}

// searchUsers is POST /user_directory/search.
func (e *endpoints) searchUsers(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		SearchTerm *string `json:"search_term"`
		Limit      *int    `json:"limit"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.SearchTerm == nil {
		return nil, mxerr.MissingParam("search_term is missing")
	}
	limit := 10
	if body.Limit != nil {
		limit = *body.Limit
	}
	if limit < 1 {
		return nil, mxerr.InvalidParam("limit must be at least 1")
	}
	found, more, err := e.Profiles.Search(ctx, *body.SearchTerm, limit, func(ctx context.Context, users []id.UserID) ([]id.UserID, error) {
		if e.Config.UserDirectory.SearchAllUsers {
			return users, nil
		}
		res, err := e.Room.QueryVisibleUsers(ctx, roomserver.QueryVisibleUsersRequest{Viewer: r.Caller.UserID, UserIDs: users})
		return res.Visible, err
	})
	if err != nil {
		return nil, err
	}
	type result struct {
		UserID      id.UserID `json:"user_id"`
		DisplayName string    `json:"display_name,omitempty"`
		AvatarURL   string    `json:"avatar_url,omitempty"`
	}
	results := make([]result, len(found))
	for i, p := range found {
		results[i] = result{p.UserID, p.DisplayName, p.AvatarURL}
	}
	return httputil.Object{"results": results, "limited": more}, nil
}
