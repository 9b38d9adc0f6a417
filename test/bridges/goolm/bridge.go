//go:build goolm

// Command goolm is a bridge of mautrix for Go with end-to-bridge encryption, which repeats what it hears as one of its
// ghosts. It starts with the checks that bridges of bridgev2 make, and keeps its device in a database as they do.
//
// Arguments: the homeserver's URL, its name, the registration's file, the port to listen at, a folder for its database,
// and how it gets messages to its device: transactions or sync.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/sqlstatestore"
	_ "modernc.org/sqlite"
)

// bridge is what handlers need.
type bridge struct {
	as      *appservice.AppService
	machine *crypto.OlmMachine
	client  *mautrix.Client // of the bot's device
	state   *sqlstatestore.SQLStateStore
	ghost   id.UserID
	events  *appservice.EventProcessor
	bySync  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 6 {
		return errors.New("usage: goolm URL NAME REGISTRATION PORT FOLDER transactions|sync")
	}
	registration, err := appservice.LoadRegistration(args[2])
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(args[3], 10, 16)
	if err != nil {
		return err
	}
	file := filepath.Join(args[4], "bridge.db")
	raw, err := sql.Open("sqlite", "file:"+file+"?_pragma=foreign_keys(1)&_txlock=immediate")
	if err != nil {
		return err
	}
	raw.SetMaxOpenConns(1)
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	if err != nil {
		return err
	}
	defer db.Close()
	log := zerolog.New(os.Stderr).With().Timestamp().Logger()
	ctx = log.WithContext(ctx)
	b := &bridge{state: sqlstatestore.NewSQLStateStore(db, dbutil.NoopLogger, false), bySync: args[5] == "sync"}
	if err := b.state.Upgrade(ctx); err != nil {
		return err
	}
	if b.as, err = appservice.CreateFull(appservice.CreateOpts{Registration: registration, HomeserverURL: args[0],
		HomeserverDomain: args[1], StateStore: b.state,
		HostConfig: appservice.HostConfig{Hostname: "127.0.0.1", Port: uint16(port)}}); err != nil {
		return err
	}
	b.as.Log, b.as.DefaultHTTPRetries, b.ghost = log, 10, id.NewUserID("_x_ghost", args[1])
	b.events = appservice.NewEventProcessor(b.as)
	b.events.ExecMode = appservice.AsyncLoop
	go b.as.Start()
	defer b.as.Stop()
	if err := b.check(ctx); err != nil {
		return err
	}
	if err := b.device(ctx, db, &log); err != nil {
		return err
	}
	b.events.PrependHandler(event.StateMember, func(ctx context.Context, e *event.Event) {
		mautrix.UpdateStateStore(ctx, b.state, e)
		b.machine.HandleMemberEvent(ctx, e)
		b.member(ctx, e)
	})
	b.events.On(event.StateEncryption, func(ctx context.Context, e *event.Event) {
		mautrix.UpdateStateStore(ctx, b.state, e)
	})
	b.events.On(event.EventEncrypted, b.encrypted)
	b.events.Start(ctx)
	defer b.events.Stop()
	b.as.Ready = true
	if b.bySync {
		b.client.Syncer = syncer{b.machine}
		go func() {
			if err := b.client.SyncWithContext(ctx); err != nil && ctx.Err() == nil {
				log.Fatal().Err(err).Msg("the sync has ended")
			}
		}()
	} else {
		b.machine.AddAppserviceListener(b.events)
	}
	fmt.Println("the bridge has started")
	<-ctx.Done()
	return nil
}

// check asks what bridges ask first.
func (b *bridge) check(ctx context.Context) error {
	bot := b.as.BotIntent()
	versions, err := bot.Versions(ctx)
	if errors.Is(err, mautrix.MForbidden) {
		if err := bot.EnsureRegistered(ctx); err != nil {
			return err
		}
		versions, err = bot.Versions(ctx)
	}
	switch {
	case err != nil:
		return err
	case !versions.ContainsGreaterOrEqual(mautrix.SpecV14):
		return fmt.Errorf("the homeserver is outdated: %s", versions.GetLatest())
	case !versions.Supports(mautrix.FeatureAppservicePing):
		return errors.New("the homeserver can not ping")
	}
	*b.as.SpecVersions = *versions
	who, err := bot.Whoami(ctx)
	if err != nil {
		return err
	}
	if who.UserID != bot.UserID {
		return fmt.Errorf("whoami says %s, not %s", who.UserID, bot.UserID)
	}
	bot.EnsureAppserviceConnection(ctx) // it ends the program when that fails
	if _, err := bot.GetMediaConfig(ctx); err != nil && !errors.Is(err, mautrix.MUnrecognized) {
		return err // a server may have no media
	}
	if _, err := bot.Capabilities(ctx); err != nil {
		return err
	}
	return bot.SetDisplayName(ctx, "Echo")
}

// device makes the bot's device, or finds it again, and signs it.
func (b *bridge) device(ctx context.Context, db *dbutil.Database, log *zerolog.Logger) error {
	bot := b.as.BotMXID()
	store := crypto.NewSQLCryptoStore(db, dbutil.NoopLogger, "", "", []byte("echo"))
	if err := store.DB.Upgrade(ctx); err != nil {
		return err
	}
	known, err := store.FindDeviceID(ctx)
	if err != nil {
		return err
	}
	b.client = b.as.NewMautrixClient(bot)
	if b.bySync {
		flows, err := b.client.GetLoginFlows(ctx)
		if err != nil {
			return err
		}
		if !flows.HasFlow(mautrix.AuthTypeAppservice) {
			return errors.New("the homeserver does not support appservice login")
		}
		who := mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: string(bot)}
		if _, err := b.client.Login(ctx, &mautrix.ReqLogin{Type: mautrix.AuthTypeAppservice, Identifier: who, DeviceID: known,
			StoreCredentials: true, InitialDeviceDisplayName: "Echo"}); err != nil {
			return err
		}
	} else if err := b.client.CreateDeviceMSC4190(ctx, known, "Echo"); err != nil {
		return err
	}
	store.DeviceID, b.client.Store = b.client.DeviceID, store
	b.machine = crypto.NewOlmMachine(b.client, log, store, b.state)
	b.machine.DisableSharedGroupSessionTracking = true
	if err := b.machine.Load(ctx); err != nil {
		return err
	}
	if known == "" {
		if err := b.machine.ShareKeys(ctx, -1); err != nil {
			return err
		}
		_, err := b.machine.GenerateAndVerifyWithRecoveryKey(ctx)
		return err
	}
	keys, err := b.client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{bot: {known}}})
	if err != nil {
		return err
	}
	if len(keys.DeviceKeys[bot][known].Keys) == 0 {
		return errors.New("the device has no keys on the server")
	}
	has, verified, err := b.machine.GetOwnVerificationStatus(ctx)
	if err == nil && !(has && verified) {
		err = fmt.Errorf("the device is not signed: %t, %t", has, verified)
	}
	return err
}

// member accepts invites of the bot: it joins, which reads, and the ghost, which talks.
func (b *bridge) member(ctx context.Context, e *event.Event) {
	bot := b.as.BotIntent()
	if e.GetStateKey() != string(bot.UserID) || e.Content.AsMember().Membership != event.MembershipInvite {
		return
	}
	err := bot.EnsureJoined(ctx, e.RoomID)
	if err == nil {
		var encryption event.EncryptionEventContent
		err = bot.StateEvent(ctx, e.RoomID, event.StateEncryption, "", &encryption)
		err = errors.Join(err, b.state.SetEncryptionEvent(ctx, e.RoomID, &encryption))
	}
	if err == nil {
		err = b.as.Intent(b.ghost).EnsureJoined(ctx, e.RoomID)
	}
	if err == nil {
		_, err = bot.JoinedMembers(ctx, e.RoomID)
	}
	if err != nil {
		b.as.Log.Err(err).Msg("accepting an invite")
	}
}

// encrypted reads what somebody else says, and repeats it.
func (b *bridge) encrypted(ctx context.Context, e *event.Event) {
	if e.Sender == b.ghost || e.Sender == b.as.BotMXID() {
		return
	}
	content := e.Content.AsEncrypted()
	plain, err := b.machine.DecryptMegolmEvent(ctx, e)
	if errors.Is(err, crypto.NoSessionFound) &&
		b.machine.WaitForSession(ctx, e.RoomID, content.SenderKey, content.SessionID, time.Minute) {
		plain, err = b.machine.DecryptMegolmEvent(ctx, e)
	}
	if err == nil {
		err = b.say(ctx, e.RoomID, "echo: "+plain.Content.AsMessage().Body)
	}
	if err != nil {
		b.as.Log.Err(err).Stringer("event", e.ID).Msg("repeating a message")
	}
}

func (b *bridge) say(ctx context.Context, room id.RoomID, text string) error {
	content := event.MessageEventContent{MsgType: event.MsgText, Body: text}
	encrypted, err := b.machine.EncryptMegolmEvent(ctx, room, event.EventMessage, content)
	if crypto.IsShareError(err) {
		members, err := b.state.GetRoomJoinedOrInvitedMembers(ctx, room)
		if err != nil {
			return err
		}
		if err := b.machine.ShareGroupSession(ctx, room, members); err != nil {
			return err
		}
		if encrypted, err = b.machine.EncryptMegolmEvent(ctx, room, event.EventMessage, content); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err = b.as.Intent(b.ghost).SendMessageEvent(ctx, room, event.EventEncrypted, encrypted)
	return err
}

// syncer takes what encryption needs, and nothing else.
type syncer struct{ machine *crypto.OlmMachine }

func (s syncer) ProcessResponse(ctx context.Context, answer *mautrix.RespSync, since string) error {
	s.machine.ProcessSyncResponse(ctx, answer, since)
	return nil
}

func (syncer) OnFailedSync(*mautrix.RespSync, error) (time.Duration, error) { return time.Second, nil }

func (syncer) GetFilterJSON(id.UserID) *mautrix.Filter {
	none := &mautrix.FilterPart{NotTypes: []event.Type{{Type: "*"}}}
	return &mautrix.Filter{Presence: none, AccountData: none,
		Room: &mautrix.RoomFilter{Timeline: none, State: none, Ephemeral: none, AccountData: none}}
}
