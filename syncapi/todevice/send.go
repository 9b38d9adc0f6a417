package todevice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// errGone says that a recipient was deleted while it was found out who the recipients are. Another device may have its
// id by now.
var errGone = errors.New("a device was deleted meanwhile")

// attempts is how often a request begins anew where devices are deleted meanwhile.
const attempts = 10

// Send keeps messages for devices of this server, and hands those for other servers over, all or none. Devices that do
// not exist get nothing. M_INVALID_PARAM, M_BAD_JSON and M_TOO_LARGE for what nobody can get, M_USER_SUSPENDED for
// messages of suspended accounts to others.
func (s *Service) Send(ctx context.Context, req *Request) error {
	if err := req.check(); err != nil {
		return err
	}
	known := s.Hub.Position()
	for range attempts {
		done, err := s.send(ctx, req, known)
		if done || err != nil {
			return err
		}
		// The Hub may not have heard of the end of the devices, which other replicas may have learnt.
		if known, err = s.Storage.Position(ctx); err != nil {
			return err
		}
	}
	return mxerr.Unavailable("devices are deleted faster than messages to them are sent: send it again")
}

// send is one attempt. What was deleted up to the known position is not listed any more.
func (s *Service) send(ctx context.Context, req *Request, known int64) (done bool, err error) {
	d, err := s.deliver(ctx, req)
	if err != nil || d.isEmpty() {
		return err == nil, err
	}
	// Of a device that was deleted before it was listed, and made anew with its id, the messages are removed up to a
	// position that comes before that of these.
	if err := s.Barrier(ctx); err != nil {
		return false, mxerr.Unavailable("it cannot be found out now which devices there are: send it again")
	}
	err = s.commit(ctx, req, known, d)
	if errors.Is(err, errGone) || errors.Is(err, sqlutil.ErrCommitUnknown) { // the request key tells whether it was sent
		return false, nil
	}
	if err == nil {
		s.trimSome(d.rows)
		s.trimServices(d.trimmed)
	}
	return err == nil, err
}

func (s *Service) commit(ctx context.Context, req *Request, known int64, d *delivery) error {
	hash := sha256.Sum256([]byte(req.RequestKey))
	err := s.Storage.Commit(ctx, "send to devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		isNew, err := s.Storage.PutToDeviceTxn(ctx, tx, hash[:16], time.Now().UnixMilli())
		if err != nil || !isNew {
			return err
		}
		for i := range d.remote {
			s.Output.Append(ctx, tx, string(d.remote[i].Sender), api.TypeToDevice, &d.remote[i])
		}
		for i := range d.services {
			s.Output.Append(ctx, tx, string(req.Sender), api.TypeServiceToDevice, &d.services[i])
		}
		if len(d.rows) == 0 {
			return nil
		}
		storage.AddReading(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
			gone, err := s.Storage.GoneSince(ctx, tx, known, d.users)
			if err != nil {
				return nil, err
			}
			if d.reaches(gone) {
				return nil, errGone
			}
			return &storage.Changes{ToDevice: d.at(pos)}, nil
		})
		return s.Storage.PutShared(ctx, tx, d.shared)
	})
	if err != nil {
		return fmt.Errorf("messages to devices: %w", err)
	}
	return nil
}
