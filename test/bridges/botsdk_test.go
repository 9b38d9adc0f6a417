package bridges

import (
	"context"
	"path/filepath"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
	"github.com/matrix-org/dendrite/test/programs"
)

// nodeBridge is a command that runs a script with what npm has, and with the stand-in for the native part of
// encryption.
func nodeBridge(t *testing.T, script string) []string {
	t.Helper()
	node, err := programs.Find("node", "nodejs")
	test.Needs(t, err)
	dir, err := programs.NPM("bridges", "npm", "crypto.cjs", "bot.mjs", "bridge.mjs")
	test.Needs(t, err)
	return []string{node, "--require", filepath.Join(dir, "crypto.cjs"), filepath.Join(dir, script)}
}

// A bridge of matrix-bot-sdk logs in as its users, and has messages to their devices with its transactions.
func TestMatrixBotSDK(t *testing.T) {
	t.Parallel()
	command := nodeBridge(t, "bot.mjs")
	on(t, echoRegistration(""), func(t *testing.T, ctx context.Context, d *deploy.Deployment, file, address string) {
		s := encryptedStory{speaker: id.NewUserID("_x_ghost", "test.example"), forgets: true, start: func() *process {
			return begin(t, append(command, d.URL(), "test.example", file, portOf(address), t.TempDir())...)
		}}
		s.tell(t, ctx, d)
	})
}
