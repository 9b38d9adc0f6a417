package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
)

// Metrics are open where only this machine listens; elsewhere they need the token, or, without one, the secret.
func TestMetricsAreShownToWhoMaySeeThem(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, "metrics") })
	for _, test := range []struct {
		address, secret, token, bearer string
		status                         int
	}{
		{"127.0.0.1:7870", "a long secret", "", "", 200},
		{"[::1]:7870", "a long secret", "a token", "", 200},
		{"localhost:7870", "", "", "", 200},
		{"0.0.0.0:7870", "a long secret", "", "", 403},
		{":7870", "a long secret", "", "", 403},
		{"10.0.0.1:7870", "a long secret", "", "a long secret", 200},
		{"10.0.0.1:7870", "a long secret", "", "another", 403},
		{"10.0.0.1:7870", "a long secret", "a token", "a token", 200},
		{"10.0.0.1:7870", "a long secret", "a token", "a long secret", 403},
		{"10.0.0.1:7870", "", "", "", 403}, // nothing is no secret
	} {
		c := config.Default()
		c.InternalSecret, c.Metrics.Token = test.secret, test.token
		p := &process{options: options{config: c, addresses: config.Addresses{Internal: test.address}}}
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Authorization", "Bearer "+test.bearer)
		w := httptest.NewRecorder()
		p.shown(metrics).ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("%+v: %d", test, w.Code)
		}
	}
}
