package routing

import (
	"context"
	"crypto/rand"
	_ "embed" // the pages
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
)

//go:embed login.html
var loginHTML string

// loginPage is GET /_matrix/static/client/login/, for clients that know no flow of this server (§ Login Fallback). The page runs nothing
// but its own script, and nobody can put it into a frame.
func (e *endpoints) loginPage(context.Context, *httputil.Request) (any, error) {
	return page(http.StatusOK, loginHTML), nil
}

// page shows HTML in which NONCE stands for a word that lets its own style and script run.
func page(status int, text string) httputil.Stream {
	return func(w http.ResponseWriter) error {
		nonce := rand.Text()
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+
			"'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, err := io.WriteString(w, strings.ReplaceAll(text, "NONCE", nonce))
		return err
	}
}

//go:embed auth.html
var authHTML string

// fields are what pages ask for, by the stage of authentication that they complete. The member of the request has the field's name.
var fields = map[string]string{
	byPassword: `<label for="secret">Password of {USER}</label>
<input id="secret" name="password" type="password" autocomplete="current-password" required autofocus>`,
	byRegistrationToken: `<label for="secret">Registration token</label>
<input id="secret" name="token" autocomplete="off" autocapitalize="none" spellcheck="false" required autofocus>`,
	byNothing: `<input id="secret" name="nothing" type="hidden">`,
}

// authPage is GET /auth/{type}/fallback/web, where a client sends users that does not know a stage (§ Fallback).
func (e *endpoints) authPage(ctx context.Context, r *httputil.Request) (any, error) {
	session, err := e.pageSession(ctx, r)
	if m, is := mxerr.As(err); is && m.Status < http.StatusInternalServerError {
		return page(m.Status, strings.NewReplacer("{ABOUT}", html.EscapeString(m.Message), "{FORM}", "").Replace(authHTML)), nil
	}
	if err != nil {
		return nil, err
	}
	who := string(session.Caller)
	if who == "" {
		who = string(e.Config.ServerName)
	}
	about := fmt.Sprintf("An app wants to %s (%s). Go on only if you have asked for that just now.", session.About, who)
	form := `<form id="form" method="post">` + strings.Replace(fields[r.Var("type")], "{USER}", html.EscapeString(who), 1) + `<button id="submit">Go on</button></form>`
	return page(http.StatusOK, strings.NewReplacer("{ABOUT}", html.EscapeString(about), "{FORM}", form).Replace(authHTML)), nil
}

// pageSession finds the session that a page is for. Whose password counts must be known by an access token: otherwise a link to this page
// would make whoever follows it act for whoever sent it.
func (e *endpoints) pageSession(ctx context.Context, r *httputil.Request) (*storage.Session, error) {
	session, err := e.UIA.Session(ctx, r.Query("session"))
	switch stage := r.Var("type"); {
	case err != nil:
		return nil, err
	case fields[stage] == "":
		return nil, mxerr.NotFound("This server does not ask for %s.", stage)
	case session == nil:
		return nil, mxerr.NotFound("This page is not valid any more. Return to the app and begin anew.")
	case stage == byPassword && session.Caller == "":
		return nil, mxerr.Forbidden("This can be confirmed in the app only.")
	}
	return session, nil
}

// completeStage is POST /auth/{type}/fallback/web, from the page.
func (e *endpoints) completeStage(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Password string `json:"password"`
		Token    string `json:"token"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	session, err := e.pageSession(ctx, r)
	if err != nil {
		return nil, err
	}
	switch r.Var("type") {
	case byPassword:
		err = e.Accounts.CheckPassword(ctx, session.Caller, body.Password, httputil.ClientAddress(r.Request))
	case byRegistrationToken:
		err = e.checkRegistrationToken(body.Token)
	}
	if err != nil {
		return nil, err
	}
	return nil, e.UIA.Complete(ctx, session.ID, r.Var("type"), session.Caller)
}
