package routing

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	maxResults    = 100
	usualContext  = 5 // events before and after a result
	maxContext    = 50
	maxSearchTerm = 1000 // bytes
)

type searchRequest struct {
	Categories *struct {
		RoomEvents *struct {
			SearchTerm   *string         `json:"search_term"`
			Keys         []string        `json:"keys"`
			Filter       json.RawMessage `json:"filter"`
			OrderBy      string          `json:"order_by"`
			IncludeState bool            `json:"include_state"`
			EventContext *struct {
				BeforeLimit    *int `json:"before_limit"`
				AfterLimit     *int `json:"after_limit"`
				IncludeProfile bool `json:"include_profile"`
			} `json:"event_context"`
			Groupings struct {
				GroupBy []struct {
					Key string `json:"key"`
				} `json:"group_by"`
			} `json:"groupings"`
		} `json:"room_events"`
	} `json:"search_categories"`
}

// searchEvents is POST /search.
func (e *endpoints) searchEvents(ctx context.Context, r *httputil.Request) (any, error) {
	var body searchRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	query, groups, err := searchQuery(r, &body)
	if err != nil || query == nil {
		return httputil.Object{"search_categories": httputil.Object{}}, err
	}
	var found roomserver.QuerySearchResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		query.Viewer = v
		found, err = e.Room.QuerySearch(ctx, *query)
		events := make([]roomserver.Event, len(found.Results))
		for i := range found.Results {
			events[i] = found.Results[i].Event
		}
		return events, err
	})
	if err != nil {
		return nil, err
	}
	answer := httputil.Object{"count": found.Count, "highlights": append([]string{}, found.Highlights...)}
	results := make([]httputil.Object, len(found.Results))
	for i := range found.Results {
		result := &found.Results[i]
		results[i] = httputil.Object{"rank": result.Rank, "result": clientEvent(r, &result.Event)}
		if c := result.Context; c != nil {
			around := httputil.Object{"start": c.Start.Token(), "end": c.End.Token(), "events_before": clientEvents(r, c.Before),
				"events_after": clientEvents(r, c.After)}
			if query.IncludeProfile {
				around["profile_info"] = c.Profiles
			}
			results[i]["context"] = around
		}
	}
	answer["results"] = results
	if query.IncludeState {
		state := make(map[id.RoomID]json.RawMessage, len(found.State))
		for room, events := range found.State {
			state[room] = clientEvents(r, events)
		}
		answer["state"] = state
	}
	if len(groups) > 0 {
		answer["groups"] = groupsOf(found.Results, groups)
	}
	if found.Next != nil {
		answer["next_batch"] = found.Next.Token()
	}
	return httputil.Object{"search_categories": httputil.Object{"room_events": answer}}, nil
}

// searchQuery checks the form of the body. Without the category room_events there is no query.
func searchQuery(r *httputil.Request, body *searchRequest) (*roomserver.QuerySearchRequest, []string, error) {
	if body.Categories == nil {
		return nil, nil, mxerr.MissingParam("search_categories is missing")
	}
	c := body.Categories.RoomEvents
	if c == nil {
		return nil, nil, nil
	}
	if c.SearchTerm == nil {
		return nil, nil, mxerr.MissingParam("search_term is missing")
	}
	if len(*c.SearchTerm) > maxSearchTerm {
		return nil, nil, mxerr.InvalidParam("search_term may have %d bytes", maxSearchTerm)
	}
	query := &roomserver.QuerySearchRequest{Term: *c.SearchTerm, Recent: c.OrderBy == "recent", IncludeState: c.IncludeState}
	var err error
	if err = oneOf("order_by", c.OrderBy, "recent", "rank"); err != nil {
		return nil, nil, err
	}
	const prefix = "content."
	for _, key := range c.Keys {
		if err := oneOf("keys", key, prefix+"body", prefix+"name", prefix+"topic"); err != nil || key == "" {
			return nil, nil, mxerr.InvalidParam("keys must be of content.body, content.name and content.topic")
		}
		query.Keys = append(query.Keys, strings.TrimPrefix(key, prefix))
	}
	if c.Keys == nil {
		query.Keys = []string{"body", "name", "topic"}
	}
	query.Limit = usualEvents
	if !isNull(c.Filter) {
		filter, err := roomserver.ParseEventFilter(c.Filter)
		if err != nil {
			return nil, nil, err
		}
		if query.Filter = filter; filter.Limit > 0 {
			query.Limit = min(filter.Limit, maxResults)
		}
	}
	if around := c.EventContext; around != nil {
		query.Context, query.IncludeProfile, query.Before, query.After = true, around.IncludeProfile, usualContext, usualContext
		for _, limit := range []struct{ from, to *int }{{around.BeforeLimit, &query.Before}, {around.AfterLimit, &query.After}} {
			if limit.from == nil {
				continue
			}
			if *limit.from < 0 {
				return nil, nil, mxerr.InvalidParam("before_limit and after_limit must be at least 0")
			}
			*limit.to = min(*limit.from, maxContext)
		}
	}
	var groups []string
	for _, group := range c.Groupings.GroupBy {
		if err := oneOf("group_by", group.Key, "room_id", "sender"); err != nil || group.Key == "" {
			return nil, nil, mxerr.InvalidParam("the key of group_by must be room_id or sender")
		}
		groups = append(groups, group.Key)
	}
	if token := r.Query("next_batch"); token != "" {
		if query.From, err = roomserver.ParseSearchPlace(token); err != nil {
			return nil, nil, mxerr.InvalidParam("next_batch: %v", err)
		}
	}
	if len(query.Keys) == 0 {
		return nil, nil, mxerr.InvalidParam("keys names nothing to search")
	}
	return query, groups, nil
}

// groupsOf sorts results into groups, in the order in which these first appear.
func groupsOf(results []roomserver.SearchResult, keys []string) map[string]map[string]httputil.Object {
	groups := make(map[string]map[string]httputil.Object, len(keys))
	for _, key := range keys {
		group := make(map[string]httputil.Object)
		members := make(map[string][]id.EventID)
		for i := range results {
			name := string(results[i].RoomID)
			if key == "sender" {
				name = string(results[i].Event.PDU.Sender())
			}
			members[name] = append(members[name], results[i].Event.PDU.ID())
			if group[name] == nil {
				group[name] = httputil.Object{"order": len(group) + 1}
			}
			group[name]["results"] = members[name]
		}
		groups[key] = group
	}
	return groups
}
