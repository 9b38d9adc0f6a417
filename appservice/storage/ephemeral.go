package storage

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Ephemeral is something ephemeral that waits for a service. A newer one takes the place of one of the same kind and
// name.
type Ephemeral struct {
	Service, Kind, Name string
	Version             int64 // when it was written, in µs
	Body                []byte
}

type ephemeralStatements struct {
	putEphemeral                                                      *sqlutil.Insert
	selectEphemeral, deleteEphemeral, trimEphemeral, ephemeralWaiting *sqlutil.Stmt
	dropEphemeral                                                     *sqlutil.Stmt
}

func prepareEphemeral(db *sqlutil.DB) ephemeralStatements {
	return ephemeralStatements{
		putEphemeral: db.Insert("appservice_ephemeral", []string{"service", "kind", "name", "version", "body"},
			`ON CONFLICT (service, kind, name) DO UPDATE SET version = excluded.version, body = excluded.body`),
		selectEphemeral: db.Stmt(`SELECT kind, name, version, body FROM appservice_ephemeral
			WHERE service = $1 ORDER BY version LIMIT $2`),
		deleteEphemeral: db.Stmt(`DELETE FROM appservice_ephemeral
			WHERE service = $1 AND kind = $2 AND name = $3 AND version = $4`),
		dropEphemeral: db.Stmt(`DELETE FROM appservice_ephemeral WHERE service = $1`),
		// Of more rows than $2 those go that have waited longest.
		trimEphemeral: db.Stmt(`DELETE FROM appservice_ephemeral WHERE service = $1 AND version <= (SELECT version FROM
			appservice_ephemeral WHERE service = $1 ORDER BY version DESC LIMIT 1 OFFSET $2)`),
		ephemeralWaiting: db.Stmt(`SELECT DISTINCT service FROM appservice_ephemeral`),
	}
}

// PutEphemeral adds what waits for services, each thing once. A service keeps the newest, as many as most.
func (s *Store) PutEphemeral(ctx context.Context, tx *sqlutil.Tx, all []Ephemeral, most int) error {
	if len(all) == 0 {
		return nil
	}
	// In one order, so that none of two transactions waits for the other.
	all = slices.SortedFunc(slices.Values(all), func(a, b Ephemeral) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	rows := make([][]any, len(all))
	var services []string
	for i := range all {
		e := &all[i]
		rows[i] = []any{e.Service, e.Kind, e.Name, e.Version, string(e.Body)}
		if len(services) == 0 || services[len(services)-1] != e.Service {
			services = append(services, e.Service)
		}
	}
	if _, err := s.putEphemeral.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("ephemeral events for services: %w", err)
	}
	for _, service := range services {
		if _, err := s.trimEphemeral.Exec(ctx, tx, service, most); err != nil {
			return fmt.Errorf("too many ephemeral events for %s: %w", service, err)
		}
	}
	return nil
}

// Ephemeral returns what has waited longest for a service.
func (s *Store) Ephemeral(ctx context.Context, tx *sqlutil.Tx, service string, most int) ([]Ephemeral, error) {
	rows, err := s.selectEphemeral.Query(ctx, tx, service, most)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Ephemeral, error) {
		e := Ephemeral{Service: service}
		err := rows.Scan(&e.Kind, &e.Name, &e.Version, &e.Body)
		return e, err
	})
}

// TakeEphemeral removes what a service gets. What has changed again meanwhile stays.
func (s *Store) TakeEphemeral(ctx context.Context, tx *sqlutil.Tx, all []Ephemeral) error {
	for i := range all {
		e := &all[i]
		if _, err := s.deleteEphemeral.Exec(ctx, tx, e.Service, e.Kind, e.Name, e.Version); err != nil {
			return fmt.Errorf("ephemeral events for %s: %w", e.Service, err)
		}
	}
	return nil
}

// EphemeralWaiting lists the services for which something ephemeral waits.
func (s *Store) EphemeralWaiting(ctx context.Context, tx *sqlutil.Tx) ([]string, error) {
	rows, err := s.ephemeralWaiting.Query(ctx, tx)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (service string, err error) {
		return service, rows.Scan(&service)
	})
}
