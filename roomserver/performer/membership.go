package performer

import (
	"context"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// action says what an action of ChangeMembershipRequest makes of which memberships. What the target is otherwise is refused before
// the authorization rules are asked, with a message that says what is wrong.
type action struct {
	membership string
	from       []string // nil: any
	not        string   // why it cannot be done from another membership,
	code       string   // and the errcode that says so
}

func actionOf(name string) (action, error) {
	switch name {
	case api.ActionInvite:
		return action{membership: invite}, nil
	case api.ActionKick:
		return action{leave, []string{join, invite, knock}, "is not in the room", "M_FORBIDDEN"}, nil
	case api.ActionBan:
		return action{membership: ban}, nil
	case api.ActionUnban:
		return action{leave, []string{ban}, "is not banned", "M_BAD_STATE"}, nil
	case api.ActionLeave:
		return action{leave, []string{join, invite, knock, leave, ban}, "is not in the room", "M_FORBIDDEN"}, nil
	case api.ActionKnock:
		return action{membership: knock}, nil
	}
	return action{}, mxerr.InvalidParam("%q is no change of membership", name)
}

// ChangeMembership invites, kicks, bans, unbans, knocks or leaves (Client-Server API, § Room membership).
func (p *Performer) ChangeMembership(ctx context.Context, req api.ChangeMembershipRequest) (api.SendEventResponse, error) {
	res, err := p.changeMembership(ctx, &req)
	return res, visibility.Hide(ctx, p.Reader, req.RoomID, req.Sender, err)
}

func (p *Performer) changeMembership(ctx context.Context, req *api.ChangeMembershipRequest) (api.SendEventResponse,
	error) {
	act, err := actionOf(req.Action)
	if err != nil {
		return api.SendEventResponse{}, err
	}
	if req.Action == api.ActionInvite && req.Target.Server() != p.ServerName {
		return api.SendEventResponse{}, notFederated(req.Target)
	}
	eventID, err := p.Input.Local(ctx, req.RoomID, req.RequestKey, func(ctx context.Context, v input.View) ([]input.Proto, id.EventID, error) {
		now, err := v.One(ctx, pdu.TypeMember, string(req.Target))
		if err != nil {
			return nil, "", err
		}
		present := ""
		if now != nil {
			present = now.PDU.Membership()
		}
		if act.from != nil && !slices.Contains(act.from, present) {
			return nil, "", mxerr.New(http.StatusForbidden, act.code, "%s %s", req.Target, act.not)
		}
		if now != nil && req.Action == api.ActionLeave && present == leave {
			return nil, now.PDU.ID(), nil
		}
		if act.membership == leave && req.Target == req.Sender && p.isNotice(now) {
			return nil, "", cannotLeave()
		}
		content := memberContent{Membership: act.membership, Reason: req.Reason, IsDirect: req.IsDirect}
		if act.membership == invite || act.membership == knock {
			content = content.with(req.Profile)
		}
		proto, err := member(req.Sender, req.Target, content, req.Timestamp)
		proto.DeviceID = req.DeviceID
		return []input.Proto{proto}, "", err
	})
	return api.SendEventResponse{EventID: eventID}, err
}

// isNotice tells whether a member event invites to a room of server notices.
func (p *Performer) isNotice(now *storage.Event) bool {
	return p.Notices != "" && now != nil && now.PDU.Sender() == p.Notices && now.PDU.Membership() == invite
}

func cannotLeave() error {
	return mxerr.New(http.StatusForbidden, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "this is where the server tells you what you must know: the invite cannot be rejected")
}

// EraseUser is of the contract.
func (p *Performer) EraseUser(ctx context.Context, req api.EraseUserRequest) (api.Empty, error) {
	return api.Empty{}, p.Storage.Erase(ctx, req.UserID)
}

// ForgetRoom makes a room that the user has left invisible to them (Client-Server API, § Leaving rooms).
func (p *Performer) ForgetRoom(ctx context.Context, req api.ForgetRoomRequest) (api.Empty, error) {
	room, err := p.Reader.Room(ctx, req.RoomID)
	if err != nil {
		return api.Empty{}, err
	}
	done := false
	if room != nil {
		done, err = p.Storage.Forget(ctx, room.NID, req.UserID)
	}
	if err == nil && !done {
		err = mxerr.New(400, "M_UNKNOWN", "you can forget a room only after you have left it")
	}
	return api.Empty{}, err
}
