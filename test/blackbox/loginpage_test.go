package blackbox

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// pageRunner is a browser's window as far as the login page looks at it. It fills the form in, submits it, and prints what came of it.
const pageRunner = `
const [script, base, query, user, password] = process.argv.slice(2);
const elements = { user: { value: user }, password: { value: password }, submit: {}, status: {}, form: { addEventListener: (_, f) => { submit = f; } } };
let submit, got = null;
globalThis.document = { getElementById: id => elements[id] };
globalThis.location = { search: query };
globalThis.window = { matrixLogin: { onLogin: response => { got = response; } } };
const ask = globalThis.fetch;
globalThis.fetch = (path, options) => ask(base + path, options);
(0, eval)(require("fs").readFileSync(script, "utf8"));
submit({ preventDefault() {} }).then(() => console.log(JSON.stringify({ got, status: elements.status.textContent, left: elements.password.value })));
`

func TestTheLoginPage(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is needed to run the page's script")
	}
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		for _, base := range d.urls {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/_matrix/static/client/login/?device_id=PAGE", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "the status", response.StatusCode, 200)
			equal(t, "the type", response.Header.Get("Content-Type"), "text/html; charset=utf-8")
			equal(t, "sniffing", response.Header.Get("X-Content-Type-Options"), "nosniff")
			script := regexp.MustCompile(`(?s)<script nonce="(\w{20,})">(.*)</script>`).FindStringSubmatch(string(text))
			if script == nil {
				t.Fatalf("the page has no script: %s", text)
			}
			policy := response.Header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'none'", "script-src 'nonce-" + script[1] + "'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, part) {
					t.Errorf("the policy %q has no %s", policy, part)
				}
			}
			dir := t.TempDir()
			page, runner := filepath.Join(dir, "page.js"), filepath.Join(dir, "run.cjs")
			for name, content := range map[string]string{page: script[2], runner: pageRunner} {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			submit := func(password string) gjson.Result {
				t.Helper()
				out, err := exec.CommandContext(t.Context(), node, runner, page, base, "?device_id=PAGE&refresh_token=true", alice.localpart, password).CombinedOutput()
				if err != nil || !json.Valid(out) {
					t.Fatalf("%v: %s", err, out)
				}
				return gjson.ParseBytes(out)
			}
			wrong := submit("wrong")
			equal(t, "what a wrong password gives", wrong.Get("got").Raw, "null")
			equal(t, "what is said", wrong.Get("status").Str, "wrong username or password")
			right := submit(alice.password)
			equal(t, "the user", right.Get("got.user_id").Str, alice.userID)
			equal(t, "the device", right.Get("got.device_id").Str, "PAGE")
			equal(t, "a refresh token", right.Get("got.refresh_token").Str != "", true)
			equal(t, "the password that is left in the form", right.Get("left").Str, "")
			c := d.anybody(t)
			c.took(right.Get("got"))
			equal(t, "whoami", c.must("GET", at("account", "whoami"), nil).Get("user_id").Str, alice.userID)
		}
	})
}
