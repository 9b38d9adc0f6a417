package routing

import (
	"net/http"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
)

func TestWhateverChangesSomethingHasALimit(t *testing.T) {
	limits := config.Default().Matrix.RateLimits.ByName
	for _, route := range Routes(Deps{}) {
		if _, has := limits[route.Limit]; !has && (route.Limit != "" || route.Method != http.MethodGet) {
			t.Errorf("%s %s: there is no limit %q", route.Method, route.Path, route.Limit)
		}
	}
}
