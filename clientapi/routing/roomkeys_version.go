package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// backupRoutes are the endpoints of § Server-side key backups.
func backupRoutes(e *endpoints) []httputil.Route {
	const (
		get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
		version             = v3 + "/room_keys/version"
		all                 = v3 + "/room_keys/keys"
		room                = all + "/{roomID}"
		session             = room + "/{sessionID}"
	)
	routes := []httputil.Route{
		{Method: post, Path: version, Name: "create_backup", Handler: e.createBackup},
		{Method: get, Path: version, Name: "latest_backup", Handler: e.latestBackup},
		{Method: get, Path: version + "/{version}", Name: "backup", Handler: e.backup},
		{Method: put, Path: version + "/{version}", Name: "update_backup", Handler: e.updateBackup},
		{Method: del, Path: version + "/{version}", Name: "delete_backup", Handler: e.deleteBackup},
		{Method: put, Path: all, Name: "put_backup_keys", Handler: e.putAllKeys},
		{Method: put, Path: room, Name: "put_backup_keys", Handler: e.putRoomKeys},
		{Method: put, Path: session, Name: "put_backup_keys", Handler: e.putKey},
		{Method: get, Path: all, Name: "backup_keys", Large: true, Handler: e.getAllKeys},
		{Method: get, Path: room, Name: "backup_keys", Large: true, Handler: e.getRoomKeys},
		{Method: get, Path: session, Name: "backup_key", Handler: e.getKey},
		{Method: del, Path: all, Name: "delete_backup_keys", Handler: e.deleteAllKeys},
		{Method: del, Path: room, Name: "delete_backup_keys", Handler: e.deleteRoomKeys},
		{Method: del, Path: session, Name: "delete_backup_keys", Handler: e.deleteKey},
	}
	for i := range routes {
		routes[i].Auth = httputil.AuthUser
		if routes[i].Method != get {
			routes[i].Limit = "keys"
		}
	}
	return routes
}

// backupBody is what clients send of a backup.
type backupBody struct {
	Algorithm *string         `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
	Version   *string         `json:"version"`
}

func readBackup(r *httputil.Request) (*backupBody, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	body := new(backupBody)
	if err := httputil.Unmarshal(raw, body); err != nil {
		return nil, err
	}
	if body.Algorithm == nil {
		return nil, lacks(raw, "algorithm", "a string")
	}
	authData, err := object("auth_data", body.AuthData)
	if err == nil && authData == nil {
		err = lacks(raw, "auth_data", "an object")
	}
	return body, err
}

// createBackup is POST /room_keys/version.
func (e *endpoints) createBackup(ctx context.Context, r *httputil.Request) (any, error) {
	body, err := readBackup(r)
	if err != nil {
		return nil, err
	}
	version, err := e.Backups.Create(ctx, r.Caller.UserID, *body.Algorithm, body.AuthData)
	return httputil.Object{"version": version}, err
}

// latestBackup is GET /room_keys/version.
func (e *endpoints) latestBackup(ctx context.Context, r *httputil.Request) (any, error) {
	b, err := e.Backups.Latest(ctx, r.Caller.UserID)
	return backup(b, err)
}

// backup is GET /room_keys/version/{version}.
func (e *endpoints) backup(ctx context.Context, r *httputil.Request) (any, error) {
	b, err := e.Backups.Backup(ctx, r.Caller.UserID, r.Var("version"))
	return backup(b, err)
}

func backup(b *storage.Backup, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return httputil.Object{"algorithm": b.Algorithm, "auth_data": b.AuthData, "count": b.Sessions,
		"etag": backups.ETag(b), "version": backups.VersionText(b.Version)}, nil
}

// updateBackup is PUT /room_keys/version/{version}.
func (e *endpoints) updateBackup(ctx context.Context, r *httputil.Request) (any, error) {
	body, err := readBackup(r)
	if err != nil {
		return nil, err
	}
	version := r.Var("version")
	if body.Version != nil && *body.Version != version {
		return nil, mxerr.InvalidParam("the version of the body is not that of the path: leave it out")
	}
	return nil, e.Backups.Update(ctx, r.Caller.UserID, version, *body.Algorithm, body.AuthData)
}

// deleteBackup is DELETE /room_keys/version/{version}.
func (e *endpoints) deleteBackup(ctx context.Context, r *httputil.Request) (any, error) {
	return nil, e.Backups.Delete(ctx, r.Caller.UserID, r.Var("version"))
}
