package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Service is what is remembered of an application service. Times are in ms since the epoch; 0: never.
type Service struct {
	ID           string
	RegisteredMS int64
	RemovedMS    int64
	Up           bool
	SinceMS      int64 // since when it is up, or not
	LastSuccess  int64
	LastError    string
}

type serviceStatements struct {
	insertServices, insertNumbers                                          *sqlutil.Insert
	allServices, markRemoved, markPresent, deleteService, noteUp, noteDown *sqlutil.Stmt
	deleteNumbers, deleteServiceTxn, deleteServiceRows, unknowRooms        *sqlutil.Stmt
	deleteRooms, deleteInterests                                           *sqlutil.Stmt
}

func prepareServices(db *sqlutil.DB) serviceStatements {
	return serviceStatements{
		insertServices: db.Insert("appservice_services", []string{"service", "registered_ms", "removed_ms",
			"last_transaction",
			"up", "since_ms", "last_success_ms", "last_error"}, `ON CONFLICT (service) DO NOTHING`),
		insertNumbers: db.Insert("appservice_numbers", []string{"service", "last"}, `ON CONFLICT (service) DO NOTHING`),
		allServices: db.Stmt(`SELECT service, registered_ms, removed_ms, up, since_ms, last_success_ms, last_error
			FROM appservice_services ORDER BY service`),
		markRemoved: db.Stmt(`UPDATE appservice_services SET removed_ms = $2 WHERE service = $1 AND removed_ms = 0`),
		markPresent: db.Stmt(`UPDATE appservice_services SET removed_ms = 0 WHERE service = ANY($1)
			AND removed_ms <> 0`),
		noteUp: db.Stmt(`UPDATE appservice_services SET up = TRUE, since_ms = CASE WHEN up THEN since_ms ELSE $2 END,
			last_success_ms = $2,
			last_error = '' WHERE service = $1`),
		noteDown: db.Stmt(`UPDATE appservice_services SET up = FALSE, since_ms = CASE WHEN up THEN $2 ELSE since_ms END,
			last_error = $3
			WHERE service = $1 AND EXISTS (SELECT 1 FROM appservice_transactions t WHERE t.service = $1 AND t.id = $4)`),
		deleteService: db.Stmt(`DELETE FROM appservice_services WHERE service = $1 AND removed_ms <> 0
			AND removed_ms < $2`),
		deleteNumbers:    db.Stmt(`DELETE FROM appservice_numbers WHERE service = $1`),
		deleteServiceTxn: db.Stmt(`DELETE FROM appservice_transactions WHERE service = $1`),
		// Rows that go leave their rooms to be counted anew, should the namespaces ever be the same again.
		unknowRooms: db.Stmt(`UPDATE appservice_rooms SET namespaces = '' WHERE room_id IN
			(SELECT room_id FROM appservice_interest WHERE service = $1)`),
		deleteRooms:       db.Stmt(`DELETE FROM appservice_rooms`),
		deleteInterests:   db.Stmt(`DELETE FROM appservice_interest`),
		deleteServiceRows: db.Stmt(`DELETE FROM appservice_interest WHERE service = $1`),
	}
}

// Services lists all that are remembered, by id.
func (s *Store) Services(ctx context.Context, tx *sqlutil.Tx) ([]Service, error) {
	rows, err := s.allServices.Query(ctx, tx)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (v Service, err error) {
		return v, rows.Scan(&v.ID, &v.RegisteredMS, &v.RemovedMS, &v.Up, &v.SinceMS, &v.LastSuccess, &v.LastError)
	})
}

// AddServices remembers services that are registered from now on. What is remembered of those that are known stays.
func (s *Store) AddServices(ctx context.Context, tx *sqlutil.Tx, services []string, nowMS int64) error {
	if len(services) == 0 {
		return nil
	}
	rows, numbers := make([][]any, len(services)), make([][]any, len(services))
	for i, service := range services {
		rows[i], numbers[i] = []any{service, nowMS, 0, 0, true, nowMS, 0, ""}, []any{service, 0}
	}
	if _, err := s.insertServices.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("add services: %w", err)
	}
	if _, err := s.insertNumbers.Exec(ctx, tx, numbers); err != nil {
		return fmt.Errorf("numbers of services: %w", err)
	}
	_, err := s.markPresent.Exec(ctx, tx, sqlutil.Array(services))
	return err
}

// MarkRemoved notes when a service was found to be gone. A time that was noted before stays.
func (s *Store) MarkRemoved(ctx context.Context, tx *sqlutil.Tx, service string, nowMS int64) error {
	_, err := s.markRemoved.Exec(ctx, tx, service, nowMS)
	return err
}

// DeleteService forgets a service that was gone before a time, with all that waits for it. It is false if it was not.
func (s *Store) DeleteService(ctx context.Context, tx *sqlutil.Tx, service string, beforeMS int64) (bool, error) {
	n, err := s.deleteService.Exec(ctx, tx, service, beforeMS)
	if err != nil || n == 0 {
		return false, err
	}
	for _, statement := range []*sqlutil.Stmt{s.deleteNumbers, s.deleteAllEvents, s.deleteServiceTxn, s.unknowRooms,
		s.deleteServiceRows, s.dropToDevice, s.dropToDeviceLast, s.dropEphemeral, s.dropTyping} {
		if _, err := statement.Exec(ctx, tx, service); err != nil {
			return false, err
		}
	}
	return true, nil
}

// ForgetRooms forgets who is interested in which room. It is for when no service is remembered.
func (s *Store) ForgetRooms(ctx context.Context, tx *sqlutil.Tx) error {
	if _, err := s.deleteRooms.Exec(ctx, tx); err != nil {
		return err
	}
	_, err := s.deleteInterests.Exec(ctx, tx)
	return err
}

// NoteUp says that a service has taken a transaction.
func (s *Store) NoteUp(ctx context.Context, tx *sqlutil.Tx, service string, nowMS int64) error {
	_, err := s.noteUp.Exec(ctx, tx, service, nowMS)
	return err
}

// NoteDown says that a service has not taken a transaction, and why. It is false if that is not under way any more.
func (s *Store) NoteDown(ctx context.Context, tx *sqlutil.Tx, t *Transaction, nowMS int64, why string) (bool, error) {
	n, err := s.noteDown.Exec(ctx, tx, t.Service, nowMS, why, t.ID)
	return n > 0, err
}
