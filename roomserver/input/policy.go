package input

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/state"
)

const (
	typePolicy  = "m.room.policy"
	policyKeyID = "ed25519:policy_server"
)

// policyError says that the room's policy server has not recommended an event.
type policyError struct{ server id.ServerName }

func (e *policyError) Error() string {
	return "the event has no valid signature of the room's policy server " + string(e.server)
}

// checkPolicy is step 7: where the room uses a policy server, the event needs its signature (Server-Server API, § Validating policy
// server signatures). It asks nobody: a signature that is missing is fetched before an event comes here.
func (d *draft) checkPolicy(ctx context.Context, e *pdu.Event) error {
	policy, err := d.One(ctx, typePolicy, "")
	if err != nil || policy == nil || e.Is(typePolicy, "") {
		return err
	}
	server := id.ServerName(state.ContentString(policy.PDU, "via"))
	key := gjson.GetBytes(policy.PDU.Content(), "public_keys.ed25519")
	if server == "" || key.Type != gjson.String {
		return nil
	}
	members, err := d.in.Storage.JoinedOfServer(ctx, d.room.NID, server, "", 1)
	if err != nil || len(members) == 0 {
		return err
	}
	public, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(key.Str, "="))
	if err == nil && e.VerifySignature(server, policyKeyID, ed25519.PublicKey(public)) {
		return nil
	}
	return &policyError{server}
}
