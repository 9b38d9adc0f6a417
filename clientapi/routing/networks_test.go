package routing

import (
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

func TestWhichNetworkAnInstanceNames(t *testing.T) {
	var all []*registration.Registration
	for _, name := range []string{"irc", "irc|two", "irc|two|three"} {
		all = append(all, &registration.Registration{ID: name, ASToken: name, Sender: id.NewUserID(name, "test")})
	}
	services, err := registration.NewSet("test", all)
	if err != nil {
		t.Fatal(err)
	}
	for instance, want := range map[string]roomserver.Network{
		"libera":               {Network: "libera"},
		"irc|libera":           {Service: "irc", Network: "libera"},
		"irc|a|b":              {Service: "irc", Network: "a|b"},
		"irc|two|libera":       {Service: "irc|two", Network: "libera"},
		"irc|two|three|libera": {Service: "irc|two|three", Network: "libera"},
		"gone|libera":          {Service: "gone", Network: "libera"},
		"irc|":                 {Service: "irc"},
	} {
		if got := *networkOf(services, instance); got != want {
			t.Errorf("%q names %+v, want %+v", instance, got, want)
		}
	}
}
