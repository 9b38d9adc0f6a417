package accountdata

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Ignored lists whom a user ignores (Client-Server API, § Ignoring Users).
func (s *Service) Ignored(ctx context.Context, user id.UserID) ([]id.UserID, error) {
	content, err := s.Get(ctx, user, "", storage.IgnoredUsers)
	return storage.IgnoredIn(content), err
}

// BlockInvites finds those of some users who want no invites (§ Invite permission).
func (s *Service) BlockInvites(ctx context.Context, users []id.UserID) (block []id.UserID, err error) {
	err = s.Storage.Read(ctx, "invite permissions", func(ctx context.Context, tx *sqlutil.Tx) error {
		block, err = s.Storage.BlockInvites(ctx, tx, users)
		return err
	})
	return block, err
}
