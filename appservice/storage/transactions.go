package storage

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Transaction is one that is under way to a service.
type Transaction struct {
	Service string
	ID      int64
	Body    []byte
	// LastNumber is the last event that it settles; 0 if it settles none. Events counts those that are in it.
	LastNumber int64
	Events     int64
	Attempts   int64
	NextMS     int64 // when it is sent next; 0 if it was not sent yet
}

type transactionStatements struct {
	nextID, insertTxn, selectTxn, allTxns, noteAttempt, deleteTxn *sqlutil.Stmt
	selectLast, passLast                                          *sqlutil.Stmt
}

func prepareTransactions(db *sqlutil.DB) transactionStatements {
	return transactionStatements{
		// An id is higher than all before, and than the time, so that none comes again after a database was restored.
		nextID: db.Stmt(`UPDATE appservice_services SET last_transaction =
			CASE WHEN last_transaction >= $2 THEN last_transaction + 1
			ELSE $2 END WHERE service = $1 AND last_transaction = $3 RETURNING last_transaction`),
		selectLast: db.Stmt(`SELECT last_transaction FROM appservice_services WHERE service = $1`),
		passLast: db.Stmt(`UPDATE appservice_services SET last_transaction = last_transaction + 1
			WHERE service = $1`),
		insertTxn: db.Stmt(`INSERT INTO appservice_transactions (service, id, body, last_number, events, attempts, next_ms)
			VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT (service) DO NOTHING`),
		selectTxn: db.Stmt(`SELECT id, body, last_number, events, attempts, next_ms FROM appservice_transactions
			WHERE service = $1`),
		allTxns: db.Stmt(`SELECT service, id, events, attempts, next_ms FROM appservice_transactions`),
		noteAttempt: db.Stmt(`UPDATE appservice_transactions SET attempts = attempts + 1, next_ms = $3
			WHERE service = $1 AND id = $2`),
		deleteTxn: db.Stmt(`DELETE FROM appservice_transactions WHERE service = $1 AND id = $2`),
	}
}

// ErrUnderWay says that a service has got a transaction meanwhile, that what waited was skipped, or that it is gone.
var ErrUnderWay = errors.New("the queue of the service has changed meanwhile, or the service is gone")

// LastTransaction is what changes when a transaction is stored or skipped. Who makes a transaction reads it before
// anything else; 0 if the service is not known.
func (s *Store) LastTransaction(ctx context.Context, tx *sqlutil.Tx, service string) (last int64, err error) {
	err = s.selectLast.QueryRow(ctx, tx, service).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return last, err
}

// Begin stores a transaction and gives it its ID, if LastTransaction is last still: else what is in it may have been
// sent by another process, or skipped.
func (s *Store) Begin(ctx context.Context, tx *sqlutil.Tx, t *Transaction, last, nowMS int64) error {
	if err := s.newID(ctx, tx, t, last, nowMS); err != nil {
		return err
	}
	return s.insert(ctx, tx, t)
}

// newID comes before everything else that a transaction does with a service: whoever changes its queue waits here.
func (s *Store) newID(ctx context.Context, tx *sqlutil.Tx, t *Transaction, last, nowMS int64) error {
	err := s.nextID.QueryRow(ctx, tx, t.Service, nowMS, last).Scan(&t.ID)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnderWay
	}
	if err != nil {
		return fmt.Errorf("id of a transaction for %s: %w", t.Service, err)
	}
	return nil
}

func (s *Store) insert(ctx context.Context, tx *sqlutil.Tx, t *Transaction) error {
	n, err := s.insertTxn.Exec(ctx, tx, t.Service, t.ID, string(t.Body), t.LastNumber, t.Events)
	if err == nil && n == 0 {
		err = ErrUnderWay
	}
	return err
}

// Transaction returns the one that is under way to a service; nil if there is none.
func (s *Store) Transaction(ctx context.Context, tx *sqlutil.Tx, service string) (*Transaction, error) {
	t := &Transaction{Service: service}
	err := s.selectTxn.QueryRow(ctx, tx, service).Scan(&t.ID, &t.Body, &t.LastNumber, &t.Events, &t.Attempts, &t.NextMS)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return t, err
}

// Transactions lists all that are under way, without their bodies.
func (s *Store) Transactions(ctx context.Context, tx *sqlutil.Tx) ([]Transaction, error) {
	rows, err := s.allTxns.Query(ctx, tx)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (t Transaction, err error) {
		return t, rows.Scan(&t.Service, &t.ID, &t.Events, &t.Attempts, &t.NextMS)
	})
}

// Replace stores a transaction in place of the one that is under way, which is old, and gives it its ID.
func (s *Store) Replace(ctx context.Context, tx *sqlutil.Tx, t *Transaction, old, nowMS int64) error {
	if err := s.newID(ctx, tx, t, old, nowMS); err != nil {
		return err
	}
	if n, err := s.deleteTxn.Exec(ctx, tx, t.Service, old); err != nil || n == 0 {
		return cmp.Or(err, ErrUnderWay)
	}
	return s.insert(ctx, tx, t)
}

// NoteAttempt says that a transaction was sent and not taken, and when it is sent next.
func (s *Store) NoteAttempt(ctx context.Context, tx *sqlutil.Tx, t *Transaction, nextMS int64) error {
	_, err := s.noteAttempt.Exec(ctx, tx, t.Service, t.ID, nextMS)
	return err
}

// End removes a transaction and the events that it settles. It is false if that was done before.
func (s *Store) End(ctx context.Context, tx *sqlutil.Tx, t *Transaction) (bool, error) {
	n, err := s.deleteTxn.Exec(ctx, tx, t.Service, t.ID)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = s.deleteEvents.Exec(ctx, tx, t.Service, t.LastNumber)
	return true, err
}

// Skip removes the transaction of a service and the events that it settles, or all events, and counts them.
func (s *Store) Skip(ctx context.Context, tx *sqlutil.Tx, service string, all bool) (events int64, err error) {
	// A transaction that is being made of these events is not stored any more.
	if _, err := s.passLast.Exec(ctx, tx, service); err != nil {
		return 0, err
	}
	t, err := s.Transaction(ctx, tx, service)
	if err != nil {
		return 0, err
	}
	if t != nil {
		if _, err := s.deleteTxn.Exec(ctx, tx, service, t.ID); err != nil {
			return 0, err
		}
	}
	switch {
	case all:
		if _, err := s.dropToDevice.Exec(ctx, tx, service); err != nil {
			return 0, err
		}
		if _, err := s.dropEphemeral.Exec(ctx, tx, service); err != nil {
			return 0, err
		}
		return s.deleteAllEvents.Exec(ctx, tx, service)
	case t != nil:
		return s.deleteEvents.Exec(ctx, tx, service, t.LastNumber)
	}
	return 0, nil
}
