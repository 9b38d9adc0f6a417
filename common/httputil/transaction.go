package httputil

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// TransactionKey is the request key of a request that the client may repeat (Client-Server API, § Transaction
// identifiers): the same for the same device, endpoint with its parameters, and transaction id.
func (r *Request) TransactionKey(endpoint ...string) string {
	scope := []string{string(r.Caller.UserID), string(r.Caller.DeviceID), r.Caller.AppService}
	return Digest(append(scope, endpoint...)...)
}

// Digest makes one short word of many.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
