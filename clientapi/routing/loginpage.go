package routing

import (
	"context"
	"crypto/rand"
	_ "embed" // the page
	"io"
	"net/http"
	"strings"

	"github.com/matrix-org/dendrite/common/httputil"
)

//go:embed login.html
var loginHTML string

// loginPage is GET /_matrix/static/client/login/, for clients that know no flow of this server (§ Login Fallback). The page runs nothing
// but its own script, and nobody can put it into a frame.
func (e *endpoints) loginPage(context.Context, *httputil.Request) (any, error) {
	return httputil.Stream(func(w http.ResponseWriter) error {
		nonce := rand.Text()
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+
			"'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, err := io.WriteString(w, strings.ReplaceAll(loginHTML, "NONCE", nonce))
		return err
	}), nil
}
