package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

type listServiceStatements struct {
	selectListServices, insertListService *sqlutil.Stmt
	dropListService                       []*sqlutil.Stmt
}

func prepareListServices(db *sqlutil.DB) listServiceStatements {
	return listServiceStatements{
		selectListServices: db.Stmt(`SELECT service FROM appservice_list_services`),
		insertListService: db.Stmt(`INSERT INTO appservice_list_services (service) VALUES ($1)
			ON CONFLICT (service) DO NOTHING`),
		dropListService: []*sqlutil.Stmt{
			db.Stmt(`DELETE FROM appservice_list_services WHERE service = $1`),
			db.Stmt(`DELETE FROM appservice_list_rooms WHERE service = $1`),
			db.Stmt(`DELETE FROM appservice_list_users WHERE service = $1`),
			db.Stmt(`DELETE FROM appservice_list_shared WHERE service = $1`),
			db.Stmt(`DELETE FROM appservice_list_changes WHERE service = $1`),
			db.Stmt(`DELETE FROM appservice_key_counts WHERE service = $1`),
		},
	}
}

// ListServices lists the services for which device lists are followed. It makes its own transaction.
func (s *Store) ListServices(ctx context.Context) (services []string, err error) {
	err = s.DB.ReadOne(ctx, "services with encryption", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectListServices.Query(ctx, tx)
		services, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (service string, err error) {
			return service, rows.Scan(&service)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("services with device lists: %w", err)
	}
	return services, nil
}

// PutListService notes that device lists are followed for a service. It returns false where they are already.
func (s *Store) PutListService(ctx context.Context, tx *sqlutil.Tx, service string) (bool, error) {
	n, err := s.insertListService.Exec(ctx, tx, service)
	return n == 1, err
}

// DropListService forgets what is known of device lists and keys for a service.
func (s *Store) DropListService(ctx context.Context, tx *sqlutil.Tx, service string) error {
	for _, drop := range s.dropListService {
		if _, err := drop.Exec(ctx, tx, service); err != nil {
			return fmt.Errorf("device lists for %s: %w", service, err)
		}
	}
	return nil
}
