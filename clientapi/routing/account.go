package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// maxDevices is how many devices one request may delete.
const maxDevices = 1000

// whoami is GET /account/whoami.
func (e *endpoints) whoami(_ context.Context, r *httputil.Request) (any, error) {
	answer := httputil.Object{"user_id": r.Caller.UserID, "is_guest": r.Caller.Guest}
	if r.Caller.DeviceID != "" {
		answer["device_id"] = r.Caller.DeviceID
	}
	return answer, nil
}

// openID is POST /user/{userId}/openid/request_token.
func (e *endpoints) openID(_ context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	if _, err := r.Object(); err != nil {
		return nil, err
	}
	if user != r.Caller.UserID {
		return nil, mxerr.Forbidden("you can prove only who you are")
	}
	return httputil.Object{"access_token": e.Tokens.OpenIDToken(user), "token_type": "Bearer", "matrix_server_name": e.Config.ServerName,
		"expires_in": int64(tokens.OpenIDLifetime.Seconds())}, nil
}

// changePassword is POST /account/password. Without an access token, the old password alone says whose it is.
func (e *endpoints) changePassword(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Auth          json.RawMessage `json:"auth"`
		NewPassword   string          `json:"new_password"`
		LogoutDevices *bool           `json:"logout_devices"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if err := errors.Join(noGuest(r), noService(r)); err != nil {
		return nil, err
	}
	if err := accounts.CheckNewPassword(body.NewPassword); err != nil {
		return nil, err
	}
	user, err := e.confirm(ctx, r, body.Auth, "change the password", "password")
	if err != nil {
		return nil, err
	}
	logout := body.LogoutDevices == nil || *body.LogoutDevices
	return nil, e.Accounts.ChangePassword(ctx, user, body.NewPassword, logout, r.Caller.DeviceID)
}

// deactivate is POST /account/deactivate.
func (e *endpoints) deactivate(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Auth     json.RawMessage `json:"auth"`
		Erase    bool            `json:"erase"`
		IDServer string          `json:"id_server"` // nothing is bound anywhere
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if err := noGuest(r); err != nil {
		return nil, err
	}
	user := r.Caller.UserID
	if !e.Accounts.Exclusively(r.Caller.AppService, user) {
		if err := noService(r); err != nil {
			return nil, err
		}
		var err error
		if user, err = e.confirm(ctx, r, body.Auth, "end the account for good", "deactivate"); err != nil {
			return nil, err
		}
	}
	pending, err := e.Accounts.Deactivate(ctx, user, body.Erase)
	if err != nil {
		return nil, err
	}
	e.Propagate.Tell(ctx, user, pending)
	return httputil.Object{"id_server_unbind_result": "success"}, nil
}

// noGuest is for endpoints that ask for a token only optionally.
func noGuest(r *httputil.Request) error {
	if r.Caller.Guest {
		return mxerr.New(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests may not use this endpoint: register an account")
	}
	return nil
}

// deviceAnswer always has all members: some clients refuse an answer without one.
type deviceAnswer struct {
	DeviceID    id.DeviceID `json:"device_id"`
	DisplayName string      `json:"display_name"`
	LastSeenIP  string      `json:"last_seen_ip"`
	LastSeenTS  int64       `json:"last_seen_ts"`
}

func answerDevice(d *storage.Device) deviceAnswer {
	return deviceAnswer{d.DeviceID, d.DisplayName, d.LastSeenIP, d.LastSeenMS}
}

// devices is GET /devices.
func (e *endpoints) devices(ctx context.Context, r *httputil.Request) (any, error) {
	devices, err := e.Accounts.Devices(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	answer := make([]deviceAnswer, len(devices))
	for i := range devices {
		answer[i] = answerDevice(&devices[i])
	}
	return httputil.Object{"devices": answer}, nil
}

func deviceID(r *httputil.Request) (id.DeviceID, error) {
	device := r.Var("deviceID")
	if device == "" || len(device) > accounts.MaxDeviceID {
		return "", mxerr.NotFound("you have no such device")
	}
	return id.DeviceID(device), nil
}

// device is GET /devices/{deviceId}.
func (e *endpoints) device(ctx context.Context, r *httputil.Request) (any, error) {
	deviceID, err := deviceID(r)
	if err != nil {
		return nil, err
	}
	device, err := e.Accounts.Device(ctx, r.Caller.UserID, deviceID)
	if err != nil {
		return nil, err
	}
	return answerDevice(device), nil
}

// putDevice is PUT /devices/{deviceId}.
func (e *endpoints) putDevice(ctx context.Context, r *httputil.Request) (any, error) {
	device, err := deviceID(r)
	if err != nil {
		return nil, err
	}
	var body struct {
		DisplayName *string `json:"display_name"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if r.Caller.AppService != "" {
		made, err := e.Accounts.PutDevice(ctx, r.Caller.UserID, device, body.DisplayName)
		if err != nil || !made {
			return nil, err
		}
		return httputil.Raw{Status: http.StatusCreated, Body: httputil.Empty}, nil
	}
	if body.DisplayName == nil {
		_, err := e.Accounts.Device(ctx, r.Caller.UserID, device)
		return nil, err
	}
	return nil, e.Accounts.RenameDevice(ctx, r.Caller.UserID, device, *body.DisplayName)
}

// deleteDevice is DELETE /devices/{deviceId}.
func (e *endpoints) deleteDevice(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Auth json.RawMessage `json:"auth"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	return e.removeDevices(ctx, r, body.Auth, []id.DeviceID{id.DeviceID(r.Var("deviceID"))})
}

// deleteDevices is POST /delete_devices.
func (e *endpoints) deleteDevices(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Auth    json.RawMessage `json:"auth"`
		Devices []id.DeviceID   `json:"devices"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Devices == nil {
		return nil, mxerr.MissingParam("devices is missing")
	}
	if len(body.Devices) > maxDevices {
		return nil, mxerr.InvalidParam("one request may delete %d devices", maxDevices)
	}
	return e.removeDevices(ctx, r, body.Auth, body.Devices)
}

func (e *endpoints) removeDevices(ctx context.Context, r *httputil.Request, auth json.RawMessage, devices []id.DeviceID) (any, error) {
	devices = slices.DeleteFunc(devices, func(d id.DeviceID) bool {
		return len(d) > accounts.MaxDeviceID || strings.ContainsRune(string(d), 0)
	})
	if r.Caller.AppService == "" {
		operation := []string{"delete devices"}
		for _, device := range devices {
			operation = append(operation, string(device))
		}
		about := fmt.Sprintf("log %d devices out", len(devices))
		if len(devices) == 1 {
			about = "log the device " + string(devices[0]) + " out"
		}
		if _, err := e.confirm(ctx, r, auth, about, operation...); err != nil {
			return nil, err
		}
	}
	return nil, e.Accounts.RemoveDevices(ctx, r.Caller.UserID, devices...)
}
