package directory

import (
	"context"
	"fmt"
	"strconv"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// A page of the directory has defaultPage rooms where the client names no limit, and never more than maxPage.
const (
	defaultPage = 100
	maxPage     = 500
)

// PublishRoom is of the contract. A room may be published, and taken out again, by those who may set its canonical alias, as far
// as the configured rules allow it, and by administrators.
func (d *Directory) PublishRoom(ctx context.Context, req api.PublishRoomRequest) (none api.Empty, err error) {
	room, err := d.rooms.Room(ctx, req.RoomID)
	if err != nil {
		return none, err
	}
	if room == nil && (req.Admin || req.Network != nil) {
		return none, mxerr.NotFound("there is no room %s here", req.RoomID)
	}
	if req.Network != nil {
		return none, d.publishIn(ctx, room.NID, *req.Network, req.Publish)
	}
	if !req.Admin {
		may, err := d.mayName(ctx, room, req.UserID)
		if err != nil {
			return none, err
		}
		if !may {
			refused := mxerr.Forbidden("publishing a room needs the power level to set m.room.canonical_alias in it")
			return none, visibility.Hide(ctx, d.rooms, req.RoomID, req.UserID, refused)
		}
		if req.Publish && !d.rules.Allows(req.UserID, req.RoomID, "") {
			return none, mxerr.Forbidden("this server does not let you publish the room %s", req.RoomID)
		}
	}
	err = d.rooms.Storage.DB.Write(ctx, "publish room", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.rooms.Storage.Publish(ctx, tx, room.NID, req.Publish)
	})
	if err != nil {
		return none, fmt.Errorf("publish room %s: %w", req.RoomID, err)
	}
	return none, nil
}

// publishIn puts a room into the directory of a network, or takes it out.
func (d *Directory) publishIn(ctx context.Context, roomNID int64, n api.Network, publish bool) error {
	err := d.rooms.Storage.DB.Write(ctx, "publish room in a network", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := d.rooms.Storage.PublishIn(ctx, tx, roomNID, n, publish); err != nil || !publish {
			return err
		}
		count, err := d.rooms.Storage.CountNetworks(ctx, tx, roomNID, n.Service)
		if err == nil && count > api.MaxNetworks {
			err = mxerr.Forbidden("a room may be in the directories of %d networks", api.MaxNetworks)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("publish a room in the network %s of %s: %w", n.Network, n.Service, err)
	}
	return nil
}

// QueryPublished is of the contract. A room that does not exist is not published, as one that nobody may know of.
func (d *Directory) QueryPublished(ctx context.Context, req api.QueryPublishedRequest) (res api.QueryPublishedResponse, err error) {
	room, err := d.rooms.Room(ctx, req.RoomID)
	if err != nil || room == nil {
		return res, err
	}
	if res.Published, err = d.rooms.Storage.Published(ctx, room.NID); err != nil {
		return res, fmt.Errorf("is %s published: %w", req.RoomID, err)
	}
	return res, nil
}

// QueryPublicRooms is of the contract. A token is a direction and how many rooms come before the page, or before the end of the
// page when going back; what moves meanwhile may appear twice or not at all.
func (d *Directory) QueryPublicRooms(ctx context.Context, req api.QueryPublicRoomsRequest) (res api.QueryPublicRoomsResponse, err error) {
	limit := min(req.Limit, maxPage)
	if limit <= 0 {
		limit = defaultPage
	}
	offset := 0
	if req.Since != "" {
		if offset, limit, err = parseSince(req.Since, limit); err != nil {
			return res, err
		}
	}
	res.Rooms, res.Total, err = d.rooms.Storage.Directory(ctx, &req, limit, offset)
	if err != nil {
		return res, fmt.Errorf("public rooms: %w", err)
	}
	if next := offset + len(res.Rooms); int64(next) < res.Total && len(res.Rooms) > 0 {
		res.NextBatch = "n" + strconv.Itoa(next)
	}
	if offset > 0 {
		res.PrevBatch = "p" + strconv.Itoa(offset)
	}
	return res, nil
}

func parseSince(since string, limit int) (offset, size int, err error) {
	n, err := strconv.ParseInt(since[1:], 10, 32)
	at := int(n)
	switch {
	case err != nil || at < 0:
	case since[0] == 'n':
		return at, limit, nil
	case since[0] == 'p':
		size = min(limit, at)
		return at - size, size, nil
	}
	return 0, 0, mxerr.InvalidParam("since must be a next_batch or prev_batch of this endpoint, not %q", since)
}
