package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
)

// uploadCrossSigning is POST /keys/device_signing/upload. Keys that replace others ask for the password, but of
// application services.
func (e *endpoints) uploadCrossSigning(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		keys.CrossSigning
		Auth json.RawMessage `json:"auth"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	checked, err := e.Keys.CheckCrossSigning(ctx, r.Caller.UserID, body.CrossSigning)
	if err != nil {
		return nil, err
	}
	if checked.Replaces && r.Caller.AppService == "" {
		if _, err := e.confirm(ctx, r, body.Auth, "replace the keys that others trust you by", "cross_signing"); err != nil {
			return nil, err
		}
	}
	return nil, e.Keys.PutCrossSigning(ctx, checked)
}

// uploadSignatures is POST /keys/signatures/upload.
func (e *endpoints) uploadSignatures(ctx context.Context, r *httputil.Request) (any, error) {
	var body map[id.UserID]map[string]json.RawMessage
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	failures, err := e.Keys.UploadSignatures(ctx, r.Caller.UserID, body)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"failures": failures}, nil
}
