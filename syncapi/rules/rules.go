// Package rules keeps users' push rules: it reads and changes their documents, within the bounds of pushrules, and
// keeps what unread counts were where they count in another way from then on.
package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
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
	content, err := s.read(ctx, user)
	if err != nil {
		return nil, err
	}
	return parse(user, content)
}

func (s *Store) read(ctx context.Context, user id.UserID) (content json.RawMessage, err error) {
	err = s.Storage.Read(ctx, "push rules", func(ctx context.Context, tx *sqlutil.Tx) error {
		content, err = s.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
		return err
	})
	return content, err
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

// draft is a change of a user's rules, made of what is stored.
type draft struct {
	stored, content json.RawMessage
	before, after   *pushrules.Document
}

func newDraft(user id.UserID, stored json.RawMessage, change func(*pushrules.Document) error) (*draft, error) {
	before, err := parse(user, stored)
	if err != nil {
		return nil, err
	}
	d := &draft{stored: stored, before: before, after: before.Clone()}
	if err := change(d.after); err != nil {
		return nil, err
	}
	if d.content, err = d.after.Encode(len(stored)); err != nil {
		return nil, fmt.Errorf("push rules of %s: %w", user, err)
	}
	return d, nil
}

// Change changes a user's rules. In rooms where unread events count in another way from then on, the count so far is
// kept. Errors are those of change, which may be called again, and M_TOO_LARGE.
func (s *Store) Change(ctx context.Context, user id.UserID, change func(*pushrules.Document) error) error {
	stored, err := s.read(ctx, user)
	if err != nil {
		return err
	}
	// Large documents are read and written before the write, since others wait for that.
	d, err := newDraft(user, stored, change)
	if err != nil {
		return err
	}
	// A refusal is an answer to this user alone: it does not undo what others write with it.
	var refusal error
	place := func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		refusal = nil
		now, err := s.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(now, d.stored) {
			next, err := newDraft(user, now, change)
			if _, refused := mxerr.As(err); refused {
				refusal = err
				return new(storage.Changes), nil
			}
			if err != nil {
				return nil, err
			}
			d = next
		}
		entry := storage.AccountData{UserID: user, Type: storage.PushRules, Pos: pos, Content: d.content}
		frozen, err := s.freeze(ctx, tx, user, pos, d.before, d.after)
		return &storage.Changes{AccountData: []storage.AccountData{entry}, Frozen: frozen}, err
	}
	if err := s.Storage.Write(ctx, "push rules", 1, place); err != nil {
		return err
	}
	return refusal
}

// Shrink brings documents within the bounds that were stored before there were any, so that nobody has to read them
// again.
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
