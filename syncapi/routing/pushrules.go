package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
)

// getPushRules is GET /pushrules/.
func (s *routes) getPushRules(ctx context.Context, r *httputil.Request) (any, error) {
	document, err := s.Rules.Get(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	content, err := answer.PushRulesContent(document, r.Caller.UserID)
	return json.RawMessage(content), err
}

// getGlobalPushRules is GET /pushrules/global/.
func (s *routes) getGlobalPushRules(ctx context.Context, r *httputil.Request) (any, error) {
	document, err := s.Rules.Get(ctx, r.Caller.UserID)
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
	document, err := s.Rules.Get(ctx, r.Caller.UserID)
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
	document, err := s.Rules.Get(ctx, r.Caller.UserID)
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

// changeRules changes the caller's rules of a kind.
func (s *routes) changeRules(ctx context.Context, r *httputil.Request, change func(*pushrules.Document, pushrules.Kind) error) error {
	kind, err := pushrules.ParseKind(r.Var("kind"))
	if err != nil {
		return err
	}
	return s.Rules.Change(ctx, r.Caller.UserID, func(d *pushrules.Document) error { return change(d, kind) })
}
