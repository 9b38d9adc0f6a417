//go:build goolm

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// listen makes the server of a bridge, before it is registered.
func (a *actor) listen(_ context.Context, _ arguments) (any, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.bridge = appservice.Create()
	go func() {
		err := http.Serve(listener, a.bridge.Router)
		a.note(func() { a.ended = fmt.Errorf("the bridge's server has ended: %w", err) })
	}()
	return object{"url": "http://" + listener.Addr().String()}, nil
}

// begin makes the bridge's own user and its device, and from then on gets all that encryption needs in transactions, as
// the bridges of mautrix do with encryption.appservice and encryption.msc4190.
func (a *actor) begin(ctx context.Context, in arguments) (any, error) {
	as := a.bridge
	as.HomeserverDomain = in.UserID.Homeserver()
	as.Registration = &appservice.Registration{ID: "bridge", AppToken: in.Token, ServerToken: in.Secret,
		SenderLocalpart: in.UserID.Localpart(), EphemeralEvents: true, MSC3202: true, MSC4190: true}
	state := mautrix.NewMemoryStateStore().(*mautrix.MemoryStateStore)
	state.JoinRules = make(map[id.RoomID]*event.JoinRulesEventContent) // mautrix 0.26 forgets it
	as.StateStore = state
	if err := as.SetHomeserverURL(in.URL); err != nil {
		return nil, err
	}
	if err := as.BotIntent().EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	a.client, a.store = as.NewMautrixClient(in.UserID), crypto.NewMemoryStore(nil)
	a.client.DefaultHTTPRetries = 7
	if err := a.client.CreateDeviceMSC4190(ctx, "", "bridge"); err != nil {
		return nil, err
	}
	a.machine = crypto.NewOlmMachine(a.client, nil, a.store, state)
	if err := errors.Join(a.machine.Load(ctx), a.machine.ShareKeys(ctx, 0)); err != nil {
		return nil, err
	}
	events := appservice.NewEventProcessor(as)
	a.machine.AddAppserviceListener(events)
	events.On(event.StateMember, a.machine.HandleMemberEvent)
	events.On(event.StateMember, a.member)
	events.On(event.EventEncrypted, func(ctx context.Context, e *event.Event) {
		go a.decrypt(context.WithoutCancel(ctx), e)
	})
	// Handlers run at the same time: this one, which fetches the keys again, knows when they are there.
	events.OnDeviceList(func(ctx context.Context, lists *mautrix.DeviceLists, since string) {
		a.machine.HandleDeviceLists(ctx, lists, since)
		a.note(func() {})
	})
	go events.Start(context.Background())
	return object{"device_id": a.client.DeviceID}, nil
}
