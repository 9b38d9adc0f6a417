//go:build goolm

// Command goolm plays encrypted clients of mautrix for tests. A line of standard input is a command for one of
// them, a line of file descriptor 3 answers it. The build tag chooses mautrix's encryption in Go; without it mautrix
// wants libolm, which is C.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// patience is how long anything is waited for.
const patience = time.Minute

// arguments are those of all commands.
type arguments struct {
	URL      string        `json:"url"`
	UserID   id.UserID     `json:"user_id"`
	Password string        `json:"password"`
	Timeline int           `json:"timeline"`
	Room     id.RoomID     `json:"room"`
	Count    int           `json:"count"`
	Text     string        `json:"text"`
	Event    id.EventID    `json:"event"`
	User     id.UserID     `json:"user"`
	IDs      []id.DeviceID `json:"ids"`
}

type object map[string]any

// actor is a client, and what its sync has told.
type actor struct {
	client  *mautrix.Client
	machine *crypto.OlmMachine
	store   *crypto.MemoryStore

	mutex    sync.Mutex
	changed  chan struct{} // closed when there is more
	invited  map[id.RoomID]bool
	messages map[id.EventID]*event.Event // decrypted
	failed   map[id.EventID]error        // why they are not
	ended    error                       // of the sync
}

// syncer asks again soon where the server is away.
type syncer struct{ *mautrix.DefaultSyncer }

func (syncer) OnFailedSync(*mautrix.RespSync, error) (time.Duration, error) { return time.Second, nil }

var commands = map[string]func(a *actor, ctx context.Context, in arguments) (any, error){
	"login": (*actor).login, "join": (*actor).join, "joined": (*actor).joined,
	"say": (*actor).say, "read": (*actor).read, "hear": (*actor).hear, "devices": (*actor).devices,
}

// login logs in, and syncs from then on.
func (a *actor) login(ctx context.Context, in arguments) (any, error) {
	client, err := mautrix.NewClient(in.URL, "", "")
	if err != nil {
		return nil, err
	}
	client.DefaultHTTPRetries, client.DefaultHTTPBackoff = 7, 250*time.Millisecond
	if _, err := client.Login(ctx, &mautrix.ReqLogin{
		Type:             mautrix.AuthTypePassword,
		Identifier:       mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: in.UserID.String()},
		Password:         in.Password,
		StoreCredentials: true,
	}); err != nil {
		return nil, err
	}
	events := syncer{mautrix.NewDefaultSyncer()}
	events.FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: in.Timeline}}}
	state := mautrix.NewMemoryStateStore().(*mautrix.MemoryStateStore)
	state.JoinRules = make(map[id.RoomID]*event.JoinRulesEventContent) // mautrix 0.26 forgets it
	client.Syncer, client.StateStore, a.client, a.store = events, state, client, crypto.NewMemoryStore(nil)
	a.machine = crypto.NewOlmMachine(client, nil, a.store, state)
	if err := errors.Join(a.machine.Load(ctx), a.machine.ShareKeys(ctx, 0)); err != nil {
		return nil, err
	}
	events.OnSync(a.machine.ProcessSyncResponse)
	events.OnEvent(client.StateStoreSyncHandler)
	events.OnEventType(event.StateMember, a.machine.HandleMemberEvent)
	events.OnEventType(event.StateMember, a.member)
	events.OnEventType(event.EventEncrypted, func(ctx context.Context, e *event.Event) {
		go a.decrypt(context.WithoutCancel(ctx), e)
	})
	events.OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		a.note(func() {})
		return true
	})
	go func() {
		err := client.SyncWithContext(context.Background())
		a.note(func() { a.ended = fmt.Errorf("the sync has ended: %w", err) })
	}()
	return object{"device_id": client.DeviceID}, nil
}

func (a *actor) member(_ context.Context, e *event.Event) {
	if e.GetStateKey() == a.client.UserID.String() && e.Content.AsMember().Membership == event.MembershipInvite {
		a.note(func() { a.invited[e.RoomID] = true })
	}
}

// decrypt waits for the key if it is not there yet.
func (a *actor) decrypt(ctx context.Context, e *event.Event) {
	content := e.Content.AsEncrypted()
	plain, err := a.machine.DecryptMegolmEvent(ctx, e)
	if errors.Is(err, crypto.NoSessionFound) &&
		a.machine.WaitForSession(ctx, e.RoomID, content.SenderKey, content.SessionID, patience) {
		plain, err = a.machine.DecryptMegolmEvent(ctx, e)
	}
	a.note(func() {
		if err != nil {
			a.failed[e.ID] = err
			return
		}
		a.messages[e.ID] = plain
	})
}

func (a *actor) note(what func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	what()
	close(a.changed)
	a.changed = make(chan struct{})
}

// until waits until something holds, looking again whenever sync has told something.
func (a *actor) until(ctx context.Context, what string, holds func() (bool, error)) error {
	for {
		a.mutex.Lock()
		is, err := holds()
		changed, ended := a.changed, a.ended
		a.mutex.Unlock()
		if err = errors.Join(err, ended); err != nil || is {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %s", what)
		}
	}
}

func (a *actor) join(ctx context.Context, in arguments) (any, error) {
	if err := a.until(ctx, "the invite", func() (bool, error) { return a.invited[in.Room], nil }); err != nil {
		return nil, err
	}
	_, err := a.client.JoinRoomByID(ctx, in.Room)
	return object{}, err
}

// joined waits until so many have joined an encrypted room.
func (a *actor) joined(ctx context.Context, in arguments) (any, error) {
	return object{}, a.until(ctx, "who has joined", func() (bool, error) {
		encrypted, err := a.client.StateStore.IsEncrypted(ctx, in.Room)
		members, membersErr := a.members(ctx, in.Room)
		return encrypted && len(members) == in.Count, errors.Join(err, membersErr)
	})
}

func (a *actor) members(ctx context.Context, room id.RoomID) (joined []id.UserID, err error) {
	all, err := a.client.StateStore.GetAllMembers(ctx, room)
	for user, member := range all {
		if member.Membership == event.MembershipJoin {
			joined = append(joined, user)
		}
	}
	return joined, err
}

func (a *actor) say(ctx context.Context, in arguments) (any, error) {
	content := event.MessageEventContent{MsgType: event.MsgText, Body: in.Text}
	encrypted, err := a.machine.EncryptMegolmEvent(ctx, in.Room, event.EventMessage, content)
	if crypto.IsShareError(err) {
		members, err := a.members(ctx, in.Room)
		if err != nil {
			return nil, err
		}
		if err := a.machine.ShareGroupSession(ctx, in.Room, members); err != nil {
			return nil, err
		}
		encrypted, err = a.machine.EncryptMegolmEvent(ctx, in.Room, event.EventMessage, content)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	sent, err := a.client.SendMessageEvent(ctx, in.Room, event.EventEncrypted, encrypted)
	if err != nil {
		return nil, err
	}
	return object{"event": sent.EventID}, nil
}

// read waits until a message is decrypted.
func (a *actor) read(ctx context.Context, in arguments) (answer any, err error) {
	err = a.until(ctx, "the message "+in.Event.String(), func() (bool, error) {
		e, is := a.messages[in.Event]
		if is {
			text := e.Content.AsMessage().Body
			answer = object{"event": e.ID, "sender": e.Sender, "text": text, "encrypted": e.Mautrix.WasEncrypted}
		}
		return is, a.failed[in.Event]
	})
	return answer, err
}

// hear waits until a message of a user with a text is decrypted.
func (a *actor) hear(ctx context.Context, in arguments) (answer any, err error) {
	err = a.until(ctx, fmt.Sprintf("that %s says %q", in.User, in.Text), func() (bool, error) {
		for _, e := range a.messages {
			if e.RoomID == in.Room && e.Sender == in.User && e.Content.AsMessage().Body == in.Text {
				answer = object{"event": e.ID, "encrypted": e.Mautrix.WasEncrypted}
				return true, nil
			}
		}
		return false, nil
	})
	return answer, err
}

// devices waits until a user has these devices and no others, and tells which of them their owner has signed.
func (a *actor) devices(ctx context.Context, in arguments) (any, error) {
	signed := []id.DeviceID{}
	err := a.until(ctx, fmt.Sprint(in.User, " has ", in.IDs), func() (bool, error) {
		devices, err := a.store.GetDevices(ctx, in.User)
		signed = signed[:0]
		for device, keys := range devices {
			if !slices.Contains(in.IDs, device) {
				return false, err
			}
			trust, err := a.machine.ResolveTrustContext(ctx, keys)
			if err != nil {
				return false, err
			}
			if trust >= id.TrustStateCrossSignedUntrusted {
				signed = append(signed, device)
			}
		}
		return len(devices) == len(in.IDs), err
	})
	return object{"signed": signed, "verified": []id.DeviceID{}}, err
}

func main() {
	actors := make(map[string]*actor)
	says := json.NewEncoder(os.NewFile(3, "answers"))
	var saying sync.Mutex
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var command struct {
			arguments
			ID int    `json:"id"`
			As string `json:"as"`
			Do string `json:"do"`
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		a, is := actors[command.As]
		if !is {
			a = &actor{changed: make(chan struct{}), invited: make(map[id.RoomID]bool),
				messages: make(map[id.EventID]*event.Event), failed: make(map[id.EventID]error)}
			actors[command.As] = a
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			said := object{"id": command.ID}
			do, is := commands[command.Do]
			if !is {
				said["error"] = "no such command: " + command.Do
			} else if answer, err := do(a, ctx, command.arguments); err != nil {
				said["error"] = fmt.Sprintf("%s: %v", command.Do, err)
			} else {
				said["answer"] = answer
			}
			saying.Lock()
			defer saying.Unlock()
			if err := says.Encode(said); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}()
	}
}
