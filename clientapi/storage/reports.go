package storage

import (
	"context"
	"database/sql"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Report is what a user has reported: a room, an event in it, or a user.
type Report struct {
	ID         int64      `json:"id"`
	ReportedMS int64      `json:"reported_ts"`
	Reporter   id.UserID  `json:"reporter"`
	RoomID     id.RoomID  `json:"room_id,omitempty"`
	EventID    id.EventID `json:"event_id,omitempty"`
	UserID     id.UserID  `json:"user_id,omitempty"`
	Reason     string     `json:"reason"`
}

type reportStatements struct {
	insertReport  *sqlutil.Stmt
	deleteSurplus *sqlutil.Stmt
	selectReports *sqlutil.Stmt
}

func prepareReports(db *sqlutil.DB) reportStatements {
	return reportStatements{
		insertReport: db.Stmt(`INSERT INTO clientapi_reports (nid, reported_ms, reporter, room_id, event_id, user_id, reason)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`),
		deleteSurplus: db.Stmt(`DELETE FROM clientapi_reports WHERE nid IN (SELECT nid FROM clientapi_reports
			WHERE reporter = $1 ORDER BY nid DESC LIMIT 1000000 OFFSET $2)`),
		selectReports: db.Stmt(`SELECT nid, reported_ms, reporter, room_id, event_id, user_id, reason FROM clientapi_reports
			WHERE nid < $1 ORDER BY nid DESC LIMIT $2`),
	}
}

// AddReport stores a report and gives it its ID, larger than those of all reports before: it is not one of a block that this process has
// taken for itself. Of the reports of a reporter the oldest go, beyond so many. It runs its own transactions.
func (s *Store) AddReport(ctx context.Context, r *Report, most int) (err error) {
	if r.ID, err = s.DB.NextIDs(ctx, "clientapi_reports", 1); err != nil {
		return err
	}
	reason := strings.ReplaceAll(r.Reason, "\x00", "") // no text column of Postgres keeps that
	return s.DB.Write(ctx, "report", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := s.insertReport.Exec(ctx, tx, r.ID, r.ReportedMS, r.Reporter, r.RoomID, r.EventID, r.UserID,
			reason); err != nil {
			return err
		}
		_, err := s.deleteSurplus.Exec(ctx, tx, r.Reporter, most)
		return err
	})
}

// Reports lists reports with a smaller id, newest first. It runs its own transaction.
func (s *Store) Reports(ctx context.Context, before int64, limit int) (all []Report, err error) {
	err = s.DB.ReadOne(ctx, "reports", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectReports.Query(ctx, tx, before, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (r Report, err error) {
			return r, rows.Scan(&r.ID, &r.ReportedMS, &r.Reporter, &r.RoomID, &r.EventID, &r.UserID, &r.Reason)
		})
		return err
	})
	return all, err
}
