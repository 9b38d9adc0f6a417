package unknown

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	appservice "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// limits allow so many calls.
type limits struct{ left int }

func (l *limits) Allow(limit, _ string) error {
	if limit != "directory" {
		return errors.New("that is another limit")
	}
	if l.left--; l.left < 0 {
		return mxerr.LimitExceeded(time.Second)
	}
	return nil
}

func (l *limits) Return(string, string) {}

// world is a Finder with one service, and what has been asked for.
type world struct {
	*Finder
	mu     sync.Mutex
	asked  []string
	known  []id.UserID
	exists bool  // what the service answers
	silent error // or why it does not
	rooms  map[id.RoomAlias]id.RoomID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	set, err := registration.NewSet("here", []*registration.Registration{{ID: "irc", URL: "http://irc", ASToken: "a", Sender: "@bot:here",
		Users: []registration.Namespace{{Regex: "@_irc_.*"}}, Aliases: []registration.Namespace{{Regex: "#_irc_.*"}}},
		{ID: "mute", ASToken: "b", Sender: "@mute:here", Users: []registration.Namespace{{Regex: "@_mute_.*"}},
			Aliases: []registration.Namespace{{Regex: "#_mute_.*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{rooms: make(map[id.RoomAlias]id.RoomID)}
	answer := func(name, by string) (appservice.QueryAnswer, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked = append(w.asked, name+by)
		return appservice.QueryAnswer{Exists: w.exists}, w.silent
	}
	w.Finder = &Finder{Services: registration.NewHolder(set), Server: "here",
		Known: func(context.Context, []id.UserID) ([]id.UserID, error) { return w.known, nil },
		App: &appservice.AppserviceAPI{
			QueryAlias: func(_ context.Context, q appservice.QueryAliasRequest) (appservice.QueryAnswer, error) {
				if w.exists {
					w.rooms[q.Alias] = "!made"
				}
				return answer(string(q.Alias), q.By)
			},
			QueryUser: func(_ context.Context, q appservice.QueryUserRequest) (appservice.QueryAnswer, error) {
				return answer(string(q.UserID), q.By)
			}},
		Room: &roomserver.RoomserverAPI{QueryAlias: func(_ context.Context, q roomserver.QueryAliasRequest) (res roomserver.QueryAliasResponse, err error) {
			if res.RoomID = w.rooms[q.Alias]; res.RoomID == "" {
				err = mxerr.NotFound("no room")
			}
			return res, err
		}}}
	return w
}

func TestOnlyWhatIsNotKnownIsAskedFor(t *testing.T) {
	w := newWorld(t)
	w.known = []id.UserID{"@_irc_known:here"}
	if err := w.Users(t.Context(), By{Service: " by x"}, "@_irc_known:here", "@_irc_new:here", "@_irc_new:here", "@_irc_x:elsewhere", "@other:here",
		"@_mute_x:here"); err != nil {
		t.Error(err)
	}
	if want := []string{"@_irc_new:here by x"}; !slices.Equal(w.asked, want) {
		t.Errorf("asked for %q, not %q", w.asked, want)
	}
}

func TestAliasesThatAServiceMakesAreFound(t *testing.T) {
	silent := mxerr.New(408, "M_UNKNOWN", "no answer")
	for name, c := range map[string]struct {
		alias  id.RoomAlias
		exists bool
		silent error
		room   id.RoomID
		code   string
		asked  int
	}{
		"made":              {alias: "#_irc_a:here", exists: true, room: "!made", asked: 1},
		"declined":          {alias: "#_irc_a:here", code: "M_NOT_FOUND", asked: 1},
		"silent":            {alias: "#_irc_a:here", silent: silent, code: "M_UNKNOWN", asked: 1},
		"made but silent":   {alias: "#_irc_a:here", exists: true, silent: silent, room: "!made", asked: 1},
		"known":             {alias: "#_irc_known:here", room: "!known"},
		"of nobody":         {alias: "#a:here", code: "M_NOT_FOUND"},
		"of who has no url": {alias: "#_mute_a:here", code: "M_NOT_FOUND"},
		"of another server": {alias: "#_irc_a:elsewhere", code: "M_NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.rooms["#_irc_known:here"] = "!known"
			w.exists, w.silent = c.exists, c.silent
			found, err := w.Alias(t.Context(), By{}, c.alias)
			if found.RoomID != c.room || (err != nil) != (c.code != "") || err != nil && !mxerr.Is(err, c.code) || len(w.asked) != c.asked {
				t.Errorf("%v %v, asked for %q", found, err, w.asked)
			}
		})
	}
}

func TestAUserIsLookedForAgainAndStrangersAreLimited(t *testing.T) {
	w := newWorld(t)
	w.Limits = &limits{left: 1}
	looks := 0
	look := func(context.Context) error {
		if looks++; looks%2 == 0 && w.exists {
			return nil
		}
		return mxerr.NotFound("no profile")
	}
	w.exists = true
	if err := w.User(t.Context(), By{Address: "192.0.2.1"}, "@_irc_a:here", look); err != nil || looks != 2 {
		t.Errorf("%v after %d looks", err, looks)
	}
	w.exists = false
	if err := w.User(t.Context(), By{Address: "192.0.2.1"}, "@_irc_a:here", look); !mxerr.Is(err, "M_LIMIT_EXCEEDED") || len(w.asked) != 1 {
		t.Errorf("a stranger beyond the limit: %v, asked for %q", err, w.asked)
	}
	if err := w.User(t.Context(), By{}, "@_irc_a:here", look); !mxerr.Is(err, "M_NOT_FOUND") || len(w.asked) != 2 {
		t.Errorf("a user of this server: %v, asked for %q", err, w.asked)
	}
}
