package storage

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Event is one that waits for a service.
type Event struct {
	Service  string
	Number   int64 // given when it is queued
	RoomID   id.RoomID
	EventID  id.EventID
	Invite   *Invite
	QueuedMS int64
}

// Invite is what belongs to the invite or knock of a service's user and is not told by the roomserver later.
type Invite struct {
	// Event is there for rooms that this server is not in.
	Event       *pdu.Event     `json:"event,omitempty"`
	RoomVersion id.RoomVersion `json:"room_version,omitempty"`
	// State is the stripped state of the room.
	State []json.RawMessage `json:"state,omitempty"`
}

type eventStatements struct {
	insertEvents                                      *sqlutil.Insert
	takeNumbers, oldestEvents, waitingCount           *sqlutil.Stmt
	deleteEvents, deleteAllEvents, servicesWithEvents *sqlutil.Stmt
}

func prepareEvents(db *sqlutil.DB) eventStatements {
	return eventStatements{
		insertEvents: db.Insert("appservice_events", []string{"service", "number", "room_id", "event_id", "invite",
			"queued_ms"}, ""),
		takeNumbers: db.Stmt(`UPDATE appservice_numbers SET last = last + $2 WHERE service = $1 RETURNING last`),
		oldestEvents: db.Stmt(`SELECT number, room_id, event_id, invite, queued_ms FROM appservice_events
			WHERE service = $1
			ORDER BY number LIMIT $2`),
		waitingCount:    db.Stmt(`SELECT service, COUNT(*), MIN(queued_ms) FROM appservice_events GROUP BY service`),
		deleteEvents:    db.Stmt(`DELETE FROM appservice_events WHERE service = $1 AND number <= $2`),
		deleteAllEvents: db.Stmt(`DELETE FROM appservice_events WHERE service = $1`),
		servicesWithEvents: db.Stmt(`SELECT service FROM appservice_services s WHERE
			EXISTS (SELECT 1 FROM appservice_events e WHERE e.service = s.service)
			OR EXISTS (SELECT 1 FROM appservice_transactions t WHERE t.service = s.service)`),
	}
}

// Queue adds events to the queues of their services, each service's in the order given. A service that is not known
// yet is from now on.
func (s *Store) Queue(ctx context.Context, tx *sqlutil.Tx, events []Event, nowMS int64) error {
	// Numbers are taken in the order of the services, so that no two transactions wait for each other.
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Service, b.Service) })
	var rows [][]any
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Service == events[0].Service {
			n++
		}
		last, err := s.numbers(ctx, tx, events[0].Service, n, nowMS)
		if err != nil {
			return fmt.Errorf("numbers for %s: %w", events[0].Service, err)
		}
		for i := range events[:n] {
			e := &events[i]
			var invite []byte
			if e.Invite != nil {
				if invite, err = json.Marshal(e.Invite); err != nil {
					return fmt.Errorf("invite %s: %w", e.EventID, err)
				}
			}
			rows = append(rows, []any{e.Service, last - int64(n-1-i), e.RoomID, e.EventID, string(invite), e.QueuedMS})
		}
		events = events[n:]
	}
	if len(rows) == 0 {
		return nil
	}
	_, err := s.insertEvents.Exec(ctx, tx, rows)
	return err
}

// numbers takes the next n numbers of a service and returns the last of them.
func (s *Store) numbers(ctx context.Context, tx *sqlutil.Tx, service string, n int, nowMS int64) (
	last int64, err error) {
	err = s.takeNumbers.QueryRow(ctx, tx, service, n).Scan(&last)
	if !errors.Is(err, sql.ErrNoRows) {
		return last, err
	}
	if err := s.AddServices(ctx, tx, []string{service}, nowMS); err != nil {
		return 0, err
	}
	return last, s.takeNumbers.QueryRow(ctx, tx, service, n).Scan(&last)
}

// Settle removes events up to a number.
func (s *Store) Settle(ctx context.Context, tx *sqlutil.Tx, service string, last int64) error {
	_, err := s.deleteEvents.Exec(ctx, tx, service, last)
	return err
}

// Oldest lists the events that wait for a service, in order, at most limit.
func (s *Store) Oldest(ctx context.Context, tx *sqlutil.Tx, service string, limit int) ([]Event, error) {
	rows, err := s.oldestEvents.Query(ctx, tx, service, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (e Event, err error) {
		e.Service = service
		var invite string
		if err = rows.Scan(&e.Number, &e.RoomID, &e.EventID, &invite, &e.QueuedMS); err == nil && invite != "" {
			e.Invite = new(Invite)
			err = json.Unmarshal([]byte(invite), e.Invite)
		}
		return e, err
	})
}

// Backlog is what waits for a service.
type Backlog struct {
	Events   int64
	OldestMS int64
}

// Backlogs counts what waits, by service; services for which nothing waits are left out.
func (s *Store) Backlogs(ctx context.Context, tx *sqlutil.Tx) (map[string]Backlog, error) {
	all := make(map[string]Backlog)
	rows, err := s.waitingCount.Query(ctx, tx)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
		var service string
		var b Backlog
		err = rows.Scan(&service, &b.Events, &b.OldestMS)
		all[service] = b
		return none, err
	})
	return all, err
}

// Waiting lists the services for which events or a transaction wait.
func (s *Store) Waiting(ctx context.Context, tx *sqlutil.Tx) ([]string, error) {
	rows, err := s.servicesWithEvents.Query(ctx, tx)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (service string, err error) {
		return service, rows.Scan(&service)
	})
}
