// Package roomserver is the component that owns the rooms: it stores every event once, decides how rooms change and who may see
// what, and tells the others through its log.
package roomserver

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/periodic"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/directory"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/performer"
	"github.com/matrix-org/dendrite/roomserver/query"
	"github.com/matrix-org/dendrite/roomserver/search"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// Peers are the components that the roomserver calls.
type Peers struct{ Client *clientapi.ClientAPI }

// New builds the component.
func New(ctx context.Context, deps component.Deps, p Peers) (*component.Component, error) {
	store, err := storage.New(ctx, deps.DB)
	if err != nil {
		return nil, err
	}
	log, err := eventlog.New(ctx, deps.DB, storage.Component, eventlog.Options{Log: deps.Log, Tracer: deps.Tracer, Sole: deps.Sole})
	if err != nil {
		return nil, err
	}
	topic, err := log.Topic(ctx, api.Topic, store.Log())
	if err != nil {
		return nil, err
	}
	reader, err := state.NewReader(store, deps.Sole)
	if err != nil {
		return nil, err
	}
	in, err := input.New(input.Deps{Storage: store, Reader: reader, Topic: topic, Signer: deps.Signer, Log: deps.Log})
	if err != nil {
		return nil, err
	}
	matrix := deps.Config.Matrix
	perform := performer.New(performer.Deps{Input: in, Reader: reader, Storage: store, ServerName: matrix.ServerName,
		DefaultVersion: matrix.DefaultRoomVersion, Notices: matrix.NoticesUser(), MayPublish: matrix.RoomDirectory.Allows})
	index := &search.Index{Storage: store, Topic: topic}
	ask := query.New(reader, visibility.New(reader), index)
	aliases := directory.New(reader, matrix.RoomDirectory, matrix.ServerName)
	return &component.Component{
		Name: storage.Component,
		API: &api.RoomserverAPI{
			CreateRoom: perform.CreateRoom, UpgradeRoom: perform.UpgradeRoom, SendEvent: perform.SendEvent, JoinRoom: perform.JoinRoom, ChangeMembership: perform.ChangeMembership,
			ForgetRoom: perform.ForgetRoom, EraseUser: perform.EraseUser, InputPDUs: in.InputPDUs,
			SetAlias: aliases.SetAlias, RemoveAlias: aliases.RemoveAlias, QueryAlias: aliases.QueryAlias, QueryRoomAliases: aliases.QueryRoomAliases,
			PublishRoom: aliases.PublishRoom, QueryPublished: aliases.QueryPublished, QueryPublicRooms: aliases.QueryPublicRooms,
			QueryEvents: ask.QueryEvents, QueryState: ask.QueryState, QueryStateDiff: ask.QueryStateDiff, QueryStrippedState: ask.QueryStrippedState,
			QueryMembers: ask.QueryMembers, QueryServerMembers: ask.QueryServerMembers,
			QueryMessages: ask.QueryMessages, QueryContext: ask.QueryContext,
			QueryRoomSummary: ask.QueryRoomSummary, QueryHierarchy: ask.QueryHierarchy,
			QuerySearch:    ask.QuerySearch,
			QueryRelations: ask.QueryRelations, QueryThreads: ask.QueryThreads, QueryAggregations: ask.QueryAggregations, QueryTimestamp: ask.QueryTimestamp,
			QueryMemberships: ask.QueryMemberships, QueryMembership: ask.QueryMembership,
			QueryMutualRooms: ask.QueryMutualRooms, QueryRooms: ask.QueryRooms,
			QueryVisibleUsers: ask.QueryVisibleUsers, ReadLog: topic.Read, Heads: topic.Heads,
		},
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return deps.Transport.Relay(ctx, log) })
			group.Go(func() error {
				periodic.Run(ctx, search.Every, deps.Log, "events cannot be indexed for search yet", index.CatchUp)
				return nil
			})
			group.Go(func() error {
				perform.RemoveGuests(ctx, p.Client, deps.Log)
				return nil
			})
			err := group.Wait()
			in.Wait()
			return err
		},
		Ready: func(ctx context.Context) error { return errors.Join(deps.DB.Ping(ctx), deps.Transport.Ready(ctx)) },
	}, nil
}
