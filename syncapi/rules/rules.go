// Package rules keeps users' push rules: it reads and changes their documents, within the bounds of pushrules, and keeps what unread
// counts were where they count in another way from then on.
package rules

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Store is where push rules are.
type Store struct {
	Storage *storage.Database
}

// Get reads what a user has changed.
func (s *Store) Get(ctx context.Context, user id.UserID) (*pushrules.Document, error) {
	var content json.RawMessage
	err := s.Storage.Read(ctx, "push rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		content, err = s.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
		return err
	})
	if err != nil {
		return nil, err
	}
	return parse(user, content)
}

func parse(user id.UserID, content json.RawMessage) (*pushrules.Document, error) {
	document := new(pushrules.Document)
	if content == nil {
		return document, nil
	}
	if err := json.Unmarshal(content, document); err != nil {
		return nil, fmt.Errorf("push rules of %s: %w", user, err)
	}
	return document, nil
}

// Change changes a user's rules. In rooms where unread events count in another way from then on, the count so far is kept. Errors are
// those of change, and M_TOO_LARGE.
func (s *Store) Change(ctx context.Context, user id.UserID, change func(*pushrules.Document) error) error {
	return s.Storage.Write(ctx, "push rules", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		stored, err := s.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
		if err != nil {
			return nil, err
		}
		before, err := parse(user, stored)
		if err != nil {
			return nil, err
		}
		after, err := parse(user, stored)
		if err != nil {
			return nil, err
		}
		if err := change(after); err != nil {
			return nil, err
		}
		content, err := after.Encode(len(stored))
		if err != nil {
			return nil, fmt.Errorf("push rules of %s: %w", user, err)
		}
		changes := &storage.Changes{AccountData: []storage.AccountData{{UserID: user, Type: storage.PushRules, Pos: pos, Content: content}}}
		changes.Frozen, err = s.freeze(ctx, tx, user, pos, before, after)
		return changes, err
	})
}

// Shrink brings documents within the bounds that were stored before there were any, so that nobody has to read them again.
func (s *Store) Shrink(ctx context.Context) error {
	var lengths map[id.UserID]int
	err := s.Storage.Read(ctx, "length of push rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		lengths, err = s.Storage.WithRules(ctx, tx)
		return err
	})
	for user, length := range lengths {
		if err == nil && length > pushrules.MaxDocument {
			err = s.Change(ctx, user, func(*pushrules.Document) error { return nil })
		}
	}
	return err
}
