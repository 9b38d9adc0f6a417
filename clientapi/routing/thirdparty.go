package routing

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// This server sends neither mails nor short messages and trusts no identity server, so nobody has third-party identifiers
// (Client-Server API, § Adding Account Administrative Contact Information, and m.3pid_changes of § Capabilities negotiation).
var (
	noThirdParties = httputil.Object{"threepids": []any{}}
	noUnbinding    = httputil.Object{"id_server_unbind_result": "no-support"} // no identity server has anything of ours
	byMail         = []string{"client_secret", "email", "send_attempt"}
	byPhone        = []string{"client_secret", "country", "phone_number", "send_attempt"}
)

func notByMedium() error {
	return mxerr.New(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "this server takes neither e-mail addresses nor telephone numbers")
}

func deniedThirdParty() error {
	return mxerr.New(http.StatusForbidden, "M_THREEPID_DENIED", "this server takes neither e-mail addresses nor telephone numbers")
}

func unknownThirdParty() error {
	return mxerr.New(http.StatusBadRequest, "M_THREEPID_NOT_FOUND", "nobody has this address here: ask the server's administrator for a new password")
}

func unverifiedThirdParty() error {
	return mxerr.New(http.StatusForbidden, "M_THREEPID_AUTH_FAILED", "this server asks no identity server, so it cannot verify this")
}

func untrustedIdentityServer() error {
	return mxerr.New(http.StatusForbidden, "M_SERVER_NOT_TRUSTED", "this server trusts no identity server: use it without this server")
}

// thirdParty is an endpoint of third-party identifiers. It checks that what the body needs is there, and then always answers the same.
func thirdParty(answer any, refusal func() error, required ...string) httputil.Handler {
	return func(_ context.Context, r *httputil.Request) (any, error) {
		var body map[string]json.RawMessage
		if err := r.JSON(&body); err != nil {
			return nil, err
		}
		for _, name := range required {
			if isNull(body[name]) {
				return nil, mxerr.MissingParam("%s is missing", name)
			}
		}
		for _, name := range append([]string{"id_server", "id_access_token", "next_link"}, required...) {
			if value := gjson.ParseBytes(body[name]); value.Exists() && value.Type != gjson.Null && !isOfThirdParty(name, value) {
				return nil, mxerr.BadJSON("%s has the wrong type", name)
			}
		}
		if refusal != nil {
			return nil, refusal()
		}
		return answer, nil
	}
}

// isOfThirdParty tells whether a member of such a body has its type.
func isOfThirdParty(name string, value gjson.Result) bool {
	switch name {
	case "send_attempt":
		return value.Type == gjson.Number
	case "three_pid_creds":
		return value.IsObject()
	}
	return value.Type == gjson.String
}
