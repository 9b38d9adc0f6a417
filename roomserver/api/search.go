package api

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
)

// SearchPlace is the place of a result among all of a search, which stays where it is when results come and go.
type SearchPlace struct {
	EventID id.EventID `json:"event_id"`
	Rank    float64    `json:"rank"`
	Sent    int64      `json:"sent"`  // the origin_server_ts of the event
	Shown   int64      `json:"shown"` // how many results there were up to here
}

// Token is the form in which clients get a place: the next_batch of /search.
func (p SearchPlace) Token() string {
	return fmt.Sprintf("%d_%d_%s_%s", p.Shown, p.Sent, strconv.FormatFloat(p.Rank, 'g', -1, 64), p.EventID)
}

// ParseSearchPlace reads what Token wrote.
func ParseSearchPlace(token string) (*SearchPlace, error) {
	parts := strings.SplitN(token, "_", 4)
	if len(parts) < 4 {
		return nil, fmt.Errorf("%q is not a token of /search", token)
	}
	var p SearchPlace
	var errs [4]error
	p.Shown, errs[0] = strconv.ParseInt(parts[0], 10, 64)
	p.Sent, errs[1] = strconv.ParseInt(parts[1], 10, 64)
	p.Rank, errs[2] = strconv.ParseFloat(parts[2], 64)
	p.EventID, errs[3] = id.ParseEventID(parts[3])
	finite := !math.IsNaN(p.Rank) && !math.IsInf(p.Rank, 0)
	if err := errors.Join(errs[:]...); err != nil || p.Shown < 0 || p.Shown > math.MaxInt32 || !finite {
		return nil, fmt.Errorf("%q is not a token of /search: %w", token, err)
	}
	return &p, nil
}
