package routing

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// document reads the push rules that a user has changed.
func (s *routes) document(ctx context.Context, user id.UserID) (*pushrules.Document, error) {
	content, err := s.accountData(ctx, user, "", storage.PushRules)
	if err != nil {
		return nil, err
	}
	return parseDocument(content)
}

func parseDocument(content json.RawMessage) (*pushrules.Document, error) {
	document := new(pushrules.Document)
	if content == nil {
		return document, nil
	}
	if err := json.Unmarshal(content, document); err != nil {
		return nil, fmt.Errorf("stored push rules: %w", err)
	}
	return document, nil
}

// getPushRules is GET /pushrules/.
func (s *routes) getPushRules(ctx context.Context, r *httputil.Request) (any, error) {
	document, err := s.document(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	content, err := answer.PushRulesContent(document, r.Caller.UserID)
	return json.RawMessage(content), err
}

// getGlobalPushRules is GET /pushrules/global/.
func (s *routes) getGlobalPushRules(ctx context.Context, r *httputil.Request) (any, error) {
	document, err := s.document(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return document.Merge(r.Caller.UserID), nil
}

// getPushRulesOfKind is GET /pushrules/global/{kind}/.
func (s *routes) getPushRulesOfKind(ctx context.Context, r *httputil.Request) (any, error) {
	kind, err := pushrules.ParseKind(r.Var("kind"))
	if err != nil {
		return nil, err
	}
	document, err := s.document(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return append([]pushrules.Rule{}, document.Merge(r.Caller.UserID)[kind]...), nil
}

func (s *routes) rule(ctx context.Context, r *httputil.Request) (pushrules.Rule, error) {
	kind, err := pushrules.ParseKind(r.Var("kind"))
	if err != nil {
		return pushrules.Rule{}, err
	}
	document, err := s.document(ctx, r.Caller.UserID)
	if err != nil {
		return pushrules.Rule{}, err
	}
	return document.Get(r.Caller.UserID, kind, r.Var("ruleId"))
}

// getPushRule is GET /pushrules/global/{kind}/{ruleId}.
func (s *routes) getPushRule(ctx context.Context, r *httputil.Request) (any, error) {
	return s.rule(ctx, r)
}

// getPushRuleEnabled is GET /pushrules/global/{kind}/{ruleId}/enabled.
func (s *routes) getPushRuleEnabled(ctx context.Context, r *httputil.Request) (any, error) {
	rule, err := s.rule(ctx, r)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"enabled": rule.Enabled}, nil
}

// getPushRuleActions is GET /pushrules/global/{kind}/{ruleId}/actions.
func (s *routes) getPushRuleActions(ctx context.Context, r *httputil.Request) (any, error) {
	rule, err := s.rule(ctx, r)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"actions": rule.Actions}, nil
}

// putPushRule is PUT /pushrules/global/{kind}/{ruleId}.
func (s *routes) putPushRule(ctx context.Context, r *httputil.Request) (any, error) {
	rule := pushrules.Rule{}
	if err := r.JSON(&rule); err != nil {
		return nil, err
	}
	rule.RuleID = r.Var("ruleId")
	before, after := r.Query("before"), r.Query("after")
	return nil, s.changeRules(ctx, r, func(d *pushrules.Document, kind pushrules.Kind) error { return d.Put(kind, rule, before, after) })
}

// deletePushRule is DELETE /pushrules/global/{kind}/{ruleId}.
func (s *routes) deletePushRule(ctx context.Context, r *httputil.Request) (any, error) {
	return nil, s.changeRules(ctx, r, func(d *pushrules.Document, kind pushrules.Kind) error { return d.Delete(kind, r.Var("ruleId")) })
}

// putPushRuleEnabled is PUT /pushrules/global/{kind}/{ruleId}/enabled.
func (s *routes) putPushRuleEnabled(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Enabled == nil {
		return nil, mxerr.MissingParam("enabled must be true or false")
	}
	return nil, s.changeRules(ctx, r, func(d *pushrules.Document, kind pushrules.Kind) error {
		return d.SetEnabled(r.Caller.UserID, kind, r.Var("ruleId"), *body.Enabled)
	})
}

// putPushRuleActions is PUT /pushrules/global/{kind}/{ruleId}/actions.
func (s *routes) putPushRuleActions(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Actions []json.RawMessage `json:"actions"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Actions == nil {
		return nil, mxerr.MissingParam("actions must be a list, if only an empty one")
	}
	return nil, s.changeRules(ctx, r, func(d *pushrules.Document, kind pushrules.Kind) error {
		return d.SetActions(r.Caller.UserID, kind, r.Var("ruleId"), body.Actions)
	})
}

// changeRules changes the caller's rules. In rooms where unread events count in another way from now on, the count so far is kept.
func (s *routes) changeRules(ctx context.Context, r *httputil.Request, change func(*pushrules.Document, pushrules.Kind) error) error {
	user := r.Caller.UserID
	kind, err := pushrules.ParseKind(r.Var("kind"))
	if err != nil {
		return err
	}
	return s.Storage.Write(ctx, "push rules", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		content, err := s.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
		if err != nil {
			return nil, err
		}
		before, err := parseDocument(content)
		if err != nil {
			return nil, err
		}
		after, err := parseDocument(content)
		if err != nil {
			return nil, err
		}
		if err := change(after, kind); err != nil {
			return nil, err
		}
		if content, err = json.Marshal(after); err != nil {
			return nil, fmt.Errorf("push rules of %s: %w", user, err)
		}
		changes := &storage.Changes{AccountData: []storage.AccountData{{UserID: user, Type: storage.PushRules, Pos: pos, Content: content}}}
		changes.Frozen, err = s.freeze(ctx, tx, user, pos, before, after)
		return changes, err
	})
}

// freeze keeps the counts of joined rooms whose class changes.
func (s *routes) freeze(ctx context.Context, tx *sqlutil.Tx, user id.UserID, pos int64, before, after *pushrules.Document) ([]storage.Frozen, error) {
	history, err := s.Storage.History(ctx, tx, user)
	if err != nil {
		return nil, err
	}
	now := make(map[id.RoomID]string)
	for i := range history {
		now[history[i].RoomID] = history[i].Membership
	}
	var rooms []id.RoomID
	for room, membership := range now {
		was, _ := before.Classify(room)
		is, _ := after.Classify(room)
		if membership == "join" && was != is {
			rooms = append(rooms, room)
		}
	}
	if len(rooms) == 0 {
		return nil, nil
	}
	unread, err := s.Storage.Unread(ctx, tx, user, rooms)
	if err != nil {
		return nil, err
	}
	stored, err := s.Storage.Rooms(ctx, tx, rooms)
	if err != nil {
		return nil, err
	}
	frozen := make([]storage.Frozen, len(unread))
	for i := range unread {
		u := &unread[i]
		frozen[i] = storage.Frozen{UserID: user, RoomID: u.RoomID, Pos: pos, Place: u.Place, Counts: u.Of(before), Base: stored[u.RoomID].All}
	}
	return frozen, nil
}
