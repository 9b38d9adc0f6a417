package accounts

import (
	"context"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
)

const (
	// MaxReason is how many bytes the reason of a report may have.
	MaxReason = 4096
	// MaxReports is how many reports of one user are kept.
	MaxReports = 1000
)

// Report keeps what a user reports, for administrators to read (Client-Server API, § Reporting Content). The caller knows that what is
// reported exists.
func (s *Service) Report(ctx context.Context, r storage.Report) error {
	if len(r.Reason) > MaxReason {
		return mxerr.TooLarge("a reason may have %d bytes, this one has %d", MaxReason, len(r.Reason))
	}
	r.ReportedMS = s.Now().UnixMilli()
	return s.Store.AddReport(ctx, &r, MaxReports)
}

// Reports lists for an administrator what users have reported, newest first, before the report with an id.
func (s *Service) Reports(ctx context.Context, by httputil.Caller, before int64, limit int) ([]storage.Report, error) {
	if err := CheckAdmin(by); err != nil {
		return nil, err
	}
	return s.Store.Reports(ctx, before, limit)
}
