package routing

import (
	"context"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// maxTransactionID is how long the id of a ping may be, in bytes.
const maxTransactionID = 1024

// ping is POST /appservice/{appserviceId}/ping.
func (e *endpoints) ping(ctx context.Context, r *httputil.Request) (any, error) {
	service := r.Var("serviceID")
	if r.Caller.AppService == "" || r.Caller.AppService != service {
		return nil, mxerr.Forbidden("only the application service itself may have itself pinged: send the as_token of its registration")
	}
	var body struct {
		TransactionID string `json:"transaction_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if len(body.TransactionID) > maxTransactionID {
		return nil, mxerr.InvalidParam("transaction_id may have %d bytes", maxTransactionID)
	}
	return e.Ping(ctx, api.PingRequest{Service: service, TransactionID: body.TransactionID})
}
