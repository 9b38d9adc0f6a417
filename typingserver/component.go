// Package typingserver is the component that keeps who is typing in which room (Client-Server API, § Typing Notifications). It
// has no tables: what it knows is over within two minutes.
package typingserver

import (
	"context"
	"encoding/json"
	"time"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/typingserver/api"
	"github.com/matrix-org/dendrite/typingserver/typing"
)

// New builds the component.
func New(_ context.Context, deps component.Deps) (*component.Component, error) {
	tracker := typing.New(func(ctx context.Context, output api.OutputTyping) {
		message, err := json.Marshal(output)
		if err == nil {
			err = deps.Transport.Publish(ctx, api.Topic, string(output.RoomID), message)
		}
		if err != nil {
			// Subscribers ask for what they have missed.
			deps.Log.WithError(err).WithField("room", output.RoomID).Warn("a change of typing could not be announced")
		}
	}, time.Now)
	return &component.Component{
		Name: "typingserver",
		API: &api.TypingserverAPI{
			SetTyping: func(ctx context.Context, req api.SetTypingRequest) (api.SetTypingResponse, error) {
				return api.SetTypingResponse{Number: tracker.Set(ctx, req.RoomID, req.UserID, req.Typing, req.Timeout)}, nil
			},
			QueryTyping: func(_ context.Context, req api.QueryTypingRequest) (api.QueryTypingResponse, error) {
				return api.QueryTypingResponse{Rooms: tracker.Rooms(req.RoomIDs)}, nil
			},
		},
		Run: tracker.Run,
	}, nil
}
