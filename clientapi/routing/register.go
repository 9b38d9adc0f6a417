package routing

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the protocol of this endpoint asks for it
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/uia"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

type registerRequest struct {
	Type                     string          `json:"type"` // of application services
	Auth                     json.RawMessage `json:"auth"`
	Username                 string          `json:"username"`
	Password                 string          `json:"password"`
	DeviceID                 id.DeviceID     `json:"device_id"`
	InitialDeviceDisplayName string          `json:"initial_device_display_name"`
	InhibitLogin             bool            `json:"inhibit_login"`
	RefreshToken             bool            `json:"refresh_token"`
	GuestAccessToken         string          `json:"guest_access_token"`
}

// register is POST /register.
func (e *endpoints) register(ctx context.Context, r *httputil.Request) (any, error) {
	var body registerRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Type == byService {
		return e.registerByService(ctx, r, body)
	}
	kind := r.Query("kind")
	if err := oneOf("kind", kind, "user", "guest"); err != nil {
		return nil, err
	}
	if kind == "guest" {
		return e.registerGuest(ctx, r, body)
	}
	if !e.Config.Registration.Enabled {
		return nil, mxerr.Forbidden("registration is closed: ask the server's administrator for an account")
	}
	if body.GuestAccessToken != "" {
		if err := e.checkGuest(ctx, body); err != nil {
			return nil, err
		}
	} else if body.Username != "" {
		if err := e.Accounts.Available(ctx, body.Username); err != nil {
			return nil, err
		}
	}
	if !isNull(body.Auth) || body.Password != "" {
		if err := accounts.CheckNewPassword(body.Password); err != nil {
			return nil, err
		}
	}
	if _, err := e.UIA.Authenticate(ctx, e.registration(r), body.Auth); err != nil {
		return nil, err
	}
	session, err := e.Accounts.Register(ctx, accounts.Registration{Localpart: body.Username, Password: body.Password, Upgrade: body.GuestAccessToken != "",
		Device: body.device(r)})
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}

func (b *registerRequest) device(r *httputil.Request) *accounts.DeviceRequest {
	if b.InhibitLogin {
		return nil
	}
	return &accounts.DeviceRequest{ID: b.DeviceID, DisplayName: b.InitialDeviceDisplayName, Refreshable: b.RefreshToken, IP: httputil.ClientAddress(r.Request)}
}

// checkGuest checks that it is a guest who registers, under the name that they have (§ Guest Access). A 401 would tell the client to
// go on with its authentication, so that M_FORBIDDEN stands for a token that is nobody's, too.
func (e *endpoints) checkGuest(ctx context.Context, body registerRequest) error {
	if body.Username == "" {
		return mxerr.MissingParam("username is missing: a guest who registers gives the local part of their user id")
	}
	local, err := e.Accounts.ParseLocalpart(body.Username)
	if err != nil {
		return err
	}
	guest, err := e.Tokens.Query(ctx, body.GuestAccessToken)
	if m, is := mxerr.As(err); err != nil && (!is || m.Status != http.StatusUnauthorized) {
		return err
	}
	if !guest.Guest || guest.UserID != id.NewUserID(local, e.Config.ServerName) {
		return mxerr.Forbidden("the guest_access_token is not of a guest with this username")
	}
	if guest.Locked {
		return mxerr.Locked()
	}
	return nil
}

// registerGuest ignores everything but the display name of the device.
func (e *endpoints) registerGuest(ctx context.Context, r *httputil.Request, body registerRequest) (any, error) {
	if !e.Config.Registration.Guests {
		return nil, mxerr.Forbidden("this server has no guests: register an account")
	}
	session, err := e.Accounts.Register(ctx, accounts.Registration{Guest: true,
		Device: &accounts.DeviceRequest{DisplayName: body.InitialDeviceDisplayName, IP: httputil.ClientAddress(r.Request)}})
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}

// registration is the authentication that a registration needs.
func (e *endpoints) registration(r *httputil.Request) uia.Operation {
	op := uia.Operation{Name: "register", About: "register an account",
		Network: httputil.Network(httputil.ClientAddress(r.Request)), Stages: map[string]uia.Stage{}}
	if e.Config.Registration.Verification == config.VerificationToken {
		op.Flows = [][]string{{byRegistrationToken}}
		op.Stages[byRegistrationToken] = func(_ context.Context, auth json.RawMessage) (id.UserID, error) {
			var stage struct {
				Token string `json:"token"`
			}
			if err := httputil.Unmarshal(auth, &stage); err != nil {
				return "", err
			}
			return "", e.checkRegistrationToken(stage.Token)
		}
		return op
	}
	op.Flows = [][]string{{byNothing}}
	op.Stages[byNothing] = func(context.Context, json.RawMessage) (id.UserID, error) { return "", nil }
	return op
}

func (e *endpoints) checkRegistrationToken(token string) error {
	if !e.isRegistrationToken(token) {
		return mxerr.Forbidden("the registration token is not valid")
	}
	return nil
}

func (e *endpoints) isRegistrationToken(token string) bool {
	valid := 0
	for _, t := range e.Config.Registration.Tokens {
		valid |= subtle.ConstantTimeCompare([]byte(t), []byte(token))
	}
	return valid == 1 && token != ""
}

// registerAvailable is GET /register/available.
func (e *endpoints) registerAvailable(ctx context.Context, r *httputil.Request) (any, error) {
	if !e.Config.Registration.Enabled {
		return nil, mxerr.Forbidden("registration is closed: ask the server's administrator for an account")
	}
	if !r.Values().Has("username") {
		return nil, mxerr.MissingParam("username is missing")
	}
	if err := e.Accounts.Available(ctx, r.Query("username")); err != nil {
		return nil, err
	}
	return httputil.Object{"available": true}, nil
}

// registrationTokenValidity is GET /register/m.login.registration_token/validity.
func (e *endpoints) registrationTokenValidity(_ context.Context, r *httputil.Request) (any, error) {
	if !e.Config.Registration.Enabled || e.Config.Registration.Verification != config.VerificationToken {
		return nil, mxerr.Forbidden("this server does not register accounts by token")
	}
	if !r.Values().Has("token") {
		return nil, mxerr.MissingParam("token is missing")
	}
	return httputil.Object{"valid": e.isRegistrationToken(r.Query("token"))}, nil
}

// adminRegisterNonce is GET /_synapse/admin/v1/register: the first step of a registration by shared secret.
func (e *endpoints) adminRegisterNonce(context.Context, *httputil.Request) (any, error) {
	if err := e.checkSharedSecret(); err != nil {
		return nil, err
	}
	return httputil.Object{"nonce": e.Tokens.Nonce()}, nil
}

func (e *endpoints) checkSharedSecret() error {
	if e.Config.Registration.SharedSecret == "" {
		return mxerr.Forbidden("registration by shared secret is off: set matrix.registration.shared_secret")
	}
	return nil
}

// adminRegister is POST /_synapse/admin/v1/register: whoever knows the shared secret makes accounts, whether registration is open or
// not.
func (e *endpoints) adminRegister(ctx context.Context, r *httputil.Request) (any, error) {
	if err := e.checkSharedSecret(); err != nil {
		return nil, err
	}
	var body struct {
		Nonce       string `json:"nonce"`
		Username    string `json:"username"`
		Password    string `json:"password"`
		DisplayName string `json:"displayname"`
		Admin       bool   `json:"admin"`
		UserType    string `json:"user_type"`
		MAC         string `json:"mac"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Nonce == "" || body.Username == "" || body.MAC == "" {
		return nil, mxerr.MissingParam("nonce, username and mac are needed")
	}
	if err := accounts.CheckNewPassword(body.Password); err != nil {
		return nil, err
	}
	if err := accounts.CheckDisplayName(body.DisplayName); err != nil {
		return nil, err
	}
	text := body.Nonce + "\x00" + body.Username + "\x00" + body.Password + "\x00"
	if body.Admin {
		text += "admin"
	} else {
		text += "notadmin"
	}
	if body.UserType != "" {
		text += "\x00" + body.UserType
	}
	mac := hmac.New(sha1.New, []byte(e.Config.Registration.SharedSecret))
	mac.Write([]byte(text))
	given, err := hex.DecodeString(body.MAC)
	if err != nil || !hmac.Equal(mac.Sum(nil), given) {
		return nil, mxerr.Forbidden("the mac is wrong: it is the HMAC-SHA1 with the shared secret of nonce, user name, password and admin or notadmin, with a NUL between them")
	}
	fresh, err := e.Tokens.UseNonce(ctx, body.Nonce)
	if err != nil {
		return nil, err
	}
	if !fresh {
		return nil, mxerr.Forbidden("the nonce is unknown, too old or was used before: get a new one")
	}
	session, err := e.Accounts.Register(ctx, accounts.Registration{Localpart: body.Username, Password: body.Password, Admin: body.Admin,
		DisplayName: body.DisplayName, Device: &accounts.DeviceRequest{IP: httputil.ClientAddress(r.Request)}})
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}
