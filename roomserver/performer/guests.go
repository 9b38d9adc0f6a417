package performer

import (
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	// guestsEvery is how often rooms are looked for that guests must leave, where no local user has just made one so.
	guestsEvery = 10 * time.Second
	// guestsAtOnce is how many rooms, and members of a room, one step looks at.
	guestsAtOnce = 500
)

// RemoveGuests makes the guests of this server leave rooms that no longer let guests in, whoever decided that, until ctx ends (Client-Server
// API, § Guest Access, Server behaviour). Which rooms these are is noted in the transaction that changes them.
func (p *Performer) RemoveGuests(ctx context.Context, client *clientapi.ClientAPI, log *logrus.Entry) {
	tick := time.NewTicker(guestsEvery)
	defer tick.Stop()
	for {
		if err := p.removeGuests(ctx, client); err != nil && ctx.Err() == nil {
			log.WithError(err).Warn("guests cannot be removed from rooms yet")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.guestsOut:
		}
	}
}

func (p *Performer) removeGuests(ctx context.Context, client *clientapi.ClientAPI) error {
	rooms, err := p.Storage.RoomsGuestsMustLeave(ctx, guestsAtOnce)
	if err != nil {
		return err
	}
	for _, room := range rooms {
		if err := p.removeGuestsFrom(ctx, client, room); err != nil {
			return fmt.Errorf("guests of %s: %w", room.RoomID, err)
		}
	}
	return nil
}

func (p *Performer) removeGuestsFrom(ctx context.Context, client *clientapi.ClientAPI, room storage.GuestsOut) error {
	summaries, err := p.Storage.Summaries(ctx, []id.RoomID{room.RoomID})
	if err != nil {
		return err
	}
	if len(summaries) == 1 && summaries[0].GuestAccess == api.GuestsCanJoin {
		return p.Storage.GuestsLeft(ctx, room.RoomNID) // they may come in again
	}
	for after := id.UserID(""); ; {
		members, err := p.Storage.JoinedOfServer(ctx, room.RoomNID, p.ServerName, after, guestsAtOnce)
		if err != nil {
			return err
		}
		if len(members) == 0 {
			return p.Storage.GuestsLeft(ctx, room.RoomNID)
		}
		known, err := client.QueryUsers(ctx, clientapi.QueryUsersRequest{UserIDs: members})
		if err != nil {
			return err
		}
		for _, guest := range known.Guests {
			_, err := p.ChangeMembership(ctx, api.ChangeMembershipRequest{Action: api.ActionLeave, RoomID: room.RoomID, Sender: guest, Target: guest,
				Reason: "guests may not be in this room any more"})
			if _, refused := mxerr.As(err); err != nil && !refused { // refused: they have left
				return err
			}
		}
		after = members[len(members)-1]
	}
}
