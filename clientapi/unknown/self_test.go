package unknown

import (
	"context"
	"testing"

	appservice "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
)

// A service that is asked for a user, and asks this server meanwhile, would wait for itself.
func TestWhoAsksIsNotAsked(t *testing.T) {
	service := &registration.Registration{ID: "irc", URL: "http://irc", ASToken: "a", Sender: "@bot:here",
		Users: []registration.Namespace{{Regex: "@irc_.*", Exclusive: true}, {Regex: "@.*"}}}
	set, err := registration.NewSet("here", []*registration.Registration{service})
	if err != nil {
		t.Fatal(err)
	}
	var by []string
	f := &Finder{Services: registration.NewHolder(set), Server: "here",
		Known: func(context.Context, []id.UserID) ([]id.UserID, error) { return nil, nil },
		App: &appservice.AppserviceAPI{
			QueryUser: func(_ context.Context, req appservice.QueryUserRequest) (appservice.QueryAnswer, error) {
				by = append(by, req.By)
				return appservice.QueryAnswer{}, nil
			},
		}}
	for i, c := range []struct {
		by   By
		want string
	}{{By{Service: "irc"}, "irc"}, {By{User: "@irc_ghost:here"}, "irc"}, {By{User: "@bot:here"}, "irc"},
		{By{User: "@alice:here"}, ""}, {By{Address: "192.0.2.1"}, ""}} {
		if err := f.Users(t.Context(), c.by, "@irc_new:here"); err != nil || len(by) != i+1 || by[i] != c.want {
			t.Errorf("%+v: asked by %q, %v; want %q", c.by, by, err, c.want)
		}
	}
}
