package routing

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

// sync is GET /sync.
func (s *routes) sync(ctx context.Context, r *httputil.Request) (any, error) {
	req := &answer.Request{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest, Lend: r.Lend}
	var err error
	if req.Since, err = tokenOf(r, "since"); err != nil {
		return nil, err
	}
	if req.Timeout, err = r.QueryMillis("timeout", answer.MaxTimeout); err != nil {
		return nil, err
	}
	if req.FullState, err = r.QueryBool("full_state"); err != nil {
		return nil, err
	}
	if req.StateAfter, err = r.QueryBool("use_state_after"); err != nil {
		return nil, err
	}
	if req.Presence, err = setPresence(r); err != nil {
		return nil, err
	}
	if req.Filter, err = s.filterOf(ctx, r); err != nil {
		return nil, err
	}
	if err := reserve(r, req); err != nil {
		return nil, err
	}
	return s.Engine.Sync(ctx, req)
}

// allRooms is what is set aside for a sync that tells of all rooms. One that waits for what is new holds nothing.
const allRooms = 4 * httputil.LargeAnswer

func reserve(r *httputil.Request, req *answer.Request) error {
	if req.Since == nil || req.FullState {
		return r.Reserve(allRooms)
	}
	return r.Reserve(0)
}

// usualPresence is what a client that syncs makes of its user, where it does not say. That an application service asks for
// something does not mean that somebody is there.
func usualPresence(r *httputil.Request) presence.State {
	if r.Caller.AppService != "" {
		return presence.Offline
	}
	return presence.Online
}

// setPresence is what a client that syncs makes of its user.
func setPresence(r *httputil.Request) (presence.State, error) {
	given := r.Query("set_presence")
	if given == "" {
		return usualPresence(r), nil
	}
	if !presence.IsState(given) {
		return "", mxerr.InvalidParam("set_presence must be online, offline or unavailable, not %q", given)
	}
	return presence.State(given), nil
}

type filterKey struct {
	user id.UserID
	id   int64
}

// filterOf is the filter of a sync: an id, JSON, or none.
func (s *routes) filterOf(ctx context.Context, r *httputil.Request) (*filter.Filter, error) {
	given := r.Query("filter")
	switch {
	case given == "":
		return filter.Default(), nil
	case strings.HasPrefix(given, "{"):
		return filter.Parse([]byte(given))
	}
	filterID, err := strconv.ParseInt(given, 10, 64)
	if err != nil {
		return nil, mxerr.InvalidParam("filter must be the id of a filter or a JSON object, not %q", given)
	}
	key := filterKey{r.Caller.UserID, filterID}
	if f, has := s.filters.Get(key); has {
		return f, nil
	}
	raw, err := s.Storage.Filter(ctx, key.user, filterID)
	if mxerr.Is(err, "M_NOT_FOUND") {
		return nil, mxerr.InvalidParam("there is no filter %d: upload it again", filterID)
	}
	if err != nil {
		return nil, err
	}
	f, err := filter.Parse(raw)
	if err != nil {
		return nil, err
	}
	s.filters.Add(key, f)
	return f, nil
}

// putFilter is POST /user/{userId}/filter.
func (s *routes) putFilter(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := self(r)
	if err != nil {
		return nil, err
	}
	raw, err := r.Content()
	if err != nil {
		return nil, err
	}
	if _, err := filter.Parse(raw); err != nil {
		return nil, err
	}
	hash := sha256.Sum256(raw)
	filterID, err := s.Storage.PutFilter(ctx, user, hash[:], raw)
	if err != nil {
		return nil, err
	}
	if err := s.Storage.TrimFilters(ctx, user, filter.MaxKept); err != nil {
		return nil, err
	}
	return httputil.Object{"filter_id": strconv.FormatInt(filterID, 10)}, nil
}

// getFilter is GET /user/{userId}/filter/{filterId}.
func (s *routes) getFilter(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := self(r)
	if err != nil {
		return nil, err
	}
	filterID, err := strconv.ParseInt(r.Var("filterId"), 10, 64)
	if err != nil {
		return nil, mxerr.NotFound("there is no filter %q", r.Var("filterId"))
	}
	raw, err := s.Storage.Filter(ctx, user, filterID)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(raw), nil
}
