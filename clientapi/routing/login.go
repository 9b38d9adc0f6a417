package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/clientapi/uia"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Login types.
const (
	byPassword = "m.login.password"
	byToken    = "m.login.token"
	byService  = "m.login.application_service"

	byRegistrationToken = "m.login.registration_token"
	byNothing           = "m.login.dummy"
)

// loginFlows is GET /login.
func (e *endpoints) loginFlows(context.Context, *httputil.Request) (any, error) {
	flows := []httputil.Object{{"type": byPassword}, {"type": byToken, "get_login_token": true}}
	if !e.Accounts.Registrations.Load().Empty() {
		flows = append(flows, httputil.Object{"type": byService})
	}
	return httputil.Object{"flows": flows}, nil
}

// passwordLogin is what names a user and proves it, in POST /login and in stages of authentication.
type passwordLogin struct {
	Identifier *struct {
		Type string `json:"type"`
		User string `json:"user"`
	} `json:"identifier"`
	User     string  `json:"user"` // the identifier's older form
	Password *string `json:"password"`
}

// name is who is named: a localpart or a user id; fallback if nobody is.
func (p *passwordLogin) name(fallback id.UserID) (string, error) {
	name := p.User
	if p.Identifier != nil {
		switch p.Identifier.Type {
		case "m.id.user":
			name = p.Identifier.User
		case "m.id.thirdparty", "m.id.phone":
			return "", mxerr.Forbidden("this server knows users by their user id only")
		default:
			return "", mxerr.New(http.StatusBadRequest, "M_UNKNOWN", "%q is not an identifier type: use m.id.user", p.Identifier.Type)
		}
	}
	if name == "" {
		name = string(fallback)
	}
	return name, nil
}

// check finds the user and checks the password, which comes from an address. fallback is who is meant if nobody is
// named.
func (p *passwordLogin) check(ctx context.Context, a *accounts.Service, fallback id.UserID,
	address string) (id.UserID, error) {
	name, err := p.name(fallback)
	if err != nil {
		return "", err
	}
	if name == "" || p.Password == nil {
		return "", mxerr.MissingParam("an identifier of type m.id.user with a user, and a password are needed")
	}
	user, err := a.ParseIdentifier(name)
	if err != nil {
		return "", err
	}
	return user, a.CheckPassword(ctx, user, *p.Password, address)
}

// login is POST /login.
func (e *endpoints) login(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		passwordLogin
		Type                     string      `json:"type"`
		Token                    string      `json:"token"`
		DeviceID                 id.DeviceID `json:"device_id"`
		InitialDeviceDisplayName string      `json:"initial_device_display_name"`
		RefreshToken             bool        `json:"refresh_token"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	device := accounts.DeviceRequest{ID: body.DeviceID, DisplayName: body.InitialDeviceDisplayName, Refreshable: body.RefreshToken,
		IP: httputil.ClientAddress(r.Request)}
	var user id.UserID
	var err error
	switch body.Type {
	case byPassword:
		user, err = body.check(ctx, e.Accounts, "", device.IP)
	case byToken:
		if body.Token == "" {
			return nil, mxerr.MissingParam("token is missing")
		}
		user, err = e.Tokens.RedeemLoginToken(ctx, body.Token)
	case byService:
		return e.loginByService(ctx, r, &body.passwordLogin, device)
	case "":
		return nil, mxerr.MissingParam("type is missing")
	default:
		return nil, mxerr.New(http.StatusBadRequest, "M_UNKNOWN", "%q is not a login type of this server: GET /login lists them", body.Type)
	}
	if err != nil {
		return nil, err
	}
	session, err := e.Accounts.Login(ctx, user, device)
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}

// sessionAnswer is what a client gets that has registered or logged in.
func (e *endpoints) sessionAnswer(s *accounts.Session) httputil.Object {
	answer := httputil.Object{"user_id": s.UserID, "home_server": e.Config.ServerName}
	if s.DeviceID == "" {
		return answer
	}
	answer["device_id"] = s.DeviceID
	addTokens(answer, s.Issued)
	if e.Config.PublicBaseURL != "" {
		answer["well_known"] = homeserverInfo(e.Config.PublicBaseURL)
	}
	return answer
}

func addTokens(answer httputil.Object, issued tokens.Issued) {
	answer["access_token"] = issued.AccessToken
	if issued.RefreshToken != "" {
		answer["refresh_token"] = issued.RefreshToken
		answer["expires_in_ms"] = issued.ExpiresIn.Milliseconds()
	}
}

// refresh is POST /refresh.
func (e *endpoints) refresh(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		RefreshToken *string `json:"refresh_token"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.RefreshToken == nil {
		return nil, mxerr.MissingParam("refresh_token is missing")
	}
	issued, err := e.Tokens.Refresh(ctx, *body.RefreshToken)
	if err != nil {
		return nil, err
	}
	answer := httputil.Object{}
	addTokens(answer, issued)
	return answer, nil
}

// loginGetToken is POST /login/get_token. It asks for the password each time.
func (e *endpoints) loginGetToken(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Auth json.RawMessage `json:"auth"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if _, err := e.confirm(ctx, r, body.Auth, "log another device in", "get_token"); err != nil {
		return nil, err
	}
	token, err := e.Tokens.LoginToken(r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"login_token": token, "expires_in_ms": tokens.LoginLifetime.Milliseconds()}, nil
}

// confirm lets a request go on whose sender gives their password once more. about says in words what it is for, and operation what it is
// for exactly. It returns whose password it was: the caller's, if there is one.
func (e *endpoints) confirm(ctx context.Context, r *httputil.Request, auth json.RawMessage, about string, operation ...string) (id.UserID, error) {
	return e.UIA.Authenticate(ctx, uia.Operation{
		About: about, Caller: r.Caller.UserID, Network: httputil.Network(httputil.ClientAddress(r.Request)),
		Name:  httputil.Digest(append([]string{string(r.Caller.UserID)}, operation...)...),
		Flows: [][]string{{byPassword}},
		Stages: map[string]uia.Stage{byPassword: func(ctx context.Context, auth json.RawMessage) (id.UserID, error) {
			var login passwordLogin
			if err := httputil.Unmarshal(auth, &login); err != nil {
				return "", err
			}
			user, err := login.check(ctx, e.Accounts, r.Caller.UserID, httputil.ClientAddress(r.Request))
			if err == nil && r.Caller.UserID != "" && user != r.Caller.UserID {
				return "", mxerr.Forbidden("this is the password of another user")
			}
			return user, err
		}},
	}, auth)
}

// logout is POST /logout.
func (e *endpoints) logout(ctx context.Context, r *httputil.Request) (any, error) {
	if r.Caller.AppService != "" && r.Caller.DeviceID == "" {
		return nil, mxerr.Forbidden("there is no session to log out of: name a device with device_id")
	}
	return nil, e.Accounts.RemoveDevices(ctx, r.Caller.UserID, r.Caller.DeviceID)
}

// logoutAll is POST /logout/all.
func (e *endpoints) logoutAll(ctx context.Context, r *httputil.Request) (any, error) {
	return nil, e.Accounts.RemoveAllDevices(ctx, r.Caller.UserID)
}
