// Package typingserver is the component that keeps who is typing in which room (Client-Server API, § Typing
// Notifications). It has no tables: what it knows is over within two minutes.
package typingserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/typingserver/api"
	"github.com/matrix-org/dendrite/typingserver/typing"
)

// announceFor is how long a change may take to be announced. Subscribers ask for what they have missed.
const announceFor = 5 * time.Second

// New builds the component.
func New(_ context.Context, deps component.Deps) (*component.Component, error) {
	tracker := typing.New(typing.Options{Replica: rand.Text(), Server: deps.Config.Matrix.ServerName, Now: time.Now,
		Announce: func(ctx context.Context, output api.OutputTyping) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceFor)
			defer cancel()
			message, err := json.Marshal(output)
			if err == nil {
				err = deps.Transport.Publish(ctx, api.Topic, string(output.RoomID), message)
			}
			if err != nil {
				deps.Log.WithError(err).WithField("room", output.RoomID).Warn("a change of typing could not be announced")
			}
		}})
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
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return tracker.Run(ctx) })
			if !deps.Sole {
				group.Go(func() error { return hearOthers(ctx, deps, tracker) })
			}
			return group.Wait()
		},
	}, nil
}

// hearOthers follows what other replicas tell, to know their rooms when callers turn to this one.
func hearOthers(ctx context.Context, deps component.Deps, tracker *typing.Tracker) error {
	return deps.Transport.Subscribe(ctx, api.Topic, func(_ string, value []byte) {
		var output api.OutputTyping
		if err := json.Unmarshal(value, &output); err != nil {
			deps.Log.WithError(err).Warn("a message of another replica cannot be read")
			return
		}
		tracker.Hear(&output)
	}, nil)
}
