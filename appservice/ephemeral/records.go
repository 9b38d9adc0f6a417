package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// receipt is what waits of a receipt.
type receipt struct {
	syncapi.OutputReceipt
	Private bool `json:"private,omitempty"`
}

// found is what records have for services.
type found struct {
	receipts []timed[receipt]
	presence []timed[syncapi.OutputPresence]
	rooms    []id.RoomID
}

type timed[T any] struct {
	value T
	at    int64 // ms
}

// TakeSync takes receipts and presence from syncapi's log.
func (s *Service) TakeSync(ctx context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	if !s.Registrations.Load().WantsEphemeral() {
		return nil, nil
	}
	f, err := read(records)
	if err != nil || len(f.receipts)+len(f.presence) == 0 {
		return nil, err
	}
	inRooms, err := s.interested(ctx, f.rooms, true)
	if err != nil {
		return nil, err
	}
	waiting := newRows(s.Now().UnixMicro())
	for i := range f.receipts {
		if err := s.addReceipt(waiting, &f.receipts[i], inRooms); err != nil {
			return nil, err
		}
	}
	if err := s.addPresence(ctx, waiting, f.presence); err != nil {
		return nil, err
	}
	all := waiting.all()
	if len(all) == 0 {
		return nil, nil
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error { return s.put(ctx, tx, all) }, nil
}

func read(records []eventlog.Record) (f found, err error) {
	for i := range records {
		r := &records[i]
		switch r.Type {
		case syncapi.TypeReceipt, syncapi.TypePrivateReceipt:
			one, err := eventlog.Decode[syncapi.OutputReceipt](r)
			if err != nil {
				return f, err
			}
			f.receipts = append(f.receipts, timed[receipt]{receipt{*one, r.Type == syncapi.TypePrivateReceipt}, r.Time})
			if !slices.Contains(f.rooms, one.RoomID) {
				f.rooms = append(f.rooms, one.RoomID)
			}
		case syncapi.TypePresence:
			one, err := eventlog.Decode[syncapi.OutputPresence](r)
			if err != nil {
				return f, err
			}
			f.presence = append(f.presence, timed[syncapi.OutputPresence]{*one, r.Time})
		}
	}
	return f, nil
}

// addReceipt adds a receipt for those interested in its room: a private one, if the user is theirs.
func (s *Service) addReceipt(to *rows, r *timed[receipt], inRooms map[id.RoomID][]*registration.Registration) error {
	services := inRooms[r.value.RoomID]
	if r.value.Private {
		services = s.Registrations.Load().Users(r.value.UserID)
	}
	kind := "m.read"
	if r.value.Private {
		kind = "m.read.private"
	}
	name := strings.Join([]string{string(r.value.RoomID), string(r.value.UserID), kind, r.value.ThreadID}, " ")
	return s.add(to, services, kindReceipt, name, r.at, r.value)
}

// addPresence adds users' presence for those whose users they are, or who have users in the users' rooms.
func (s *Service) addPresence(ctx context.Context, to *rows, all []timed[syncapi.OutputPresence]) error {
	var rooms []id.RoomID
	for i := range all {
		rooms = append(rooms, all[i].value.Rooms...)
	}
	slices.Sort(rooms)
	inRooms, err := s.interested(ctx, slices.Compact(rooms), false)
	if err != nil {
		return err
	}
	for i := range all {
		body := all[i].value
		services := slices.Clone(s.Registrations.Load().Users(body.UserID))
		for _, room := range body.Rooms {
			for _, service := range inRooms[room] {
				if !slices.Contains(services, service) {
					services = append(services, service)
				}
			}
		}
		body.Rooms = nil
		if err := s.add(to, services, kindPresence, string(body.UserID), all[i].at, body); err != nil {
			return err
		}
	}
	return nil
}

// add adds a row for each of the services that were registered when something happened.
func (s *Service) add(to *rows, services []*registration.Registration, kind, name string, at int64, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s for services: %w", kind, err)
	}
	for _, service := range services {
		if service.WantsEphemeral() && at >= s.Registered(service.ID) {
			to.add(storage.Ephemeral{Service: service.ID, Kind: kind, Name: name, Body: body})
		}
	}
	return nil
}

// rows are those to be written, each thing once.
type rows struct {
	version int64
	byName  map[[3]string]storage.Ephemeral
}

func newRows(version int64) *rows {
	return &rows{version: version, byName: make(map[[3]string]storage.Ephemeral)}
}

// add adds a row in place of one that it supersedes.
func (r *rows) add(e storage.Ephemeral) {
	r.version++ // they are sent in this order
	e.Version = r.version
	r.byName[[3]string{e.Service, e.Kind, e.Name}] = e
}

func (r *rows) all() (all []storage.Ephemeral) {
	for _, e := range r.byName {
		all = append(all, e)
	}
	return all
}
