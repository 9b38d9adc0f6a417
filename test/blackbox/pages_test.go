package blackbox

import (
	"crypto/rand"
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

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
)

// pageRunner is a browser's window as far as the pages look at it. It fills the form in, submits it, and prints what came of it.
const pageRunner = `
const [script, base, path, query, user, secret, name] = process.argv.slice(2);
const elements = { user: { value: user }, password: { value: secret }, secret: { name, value: secret }, submit: {}, status: {},
	form: { addEventListener: (_, f) => { submit = f; } } };
let submit, got = null;
globalThis.document = { getElementById: id => elements[id] };
globalThis.location = { pathname: path, search: query };
globalThis.window = { matrixLogin: { onLogin: response => { got = response; } }, onAuthDone: () => { got = "done"; } };
const ask = globalThis.fetch;
globalThis.fetch = (path, options) => ask(base + path, options);
(0, eval)(require("fs").readFileSync(script, "utf8"));
submit({ preventDefault() {} }).then(() => console.log(JSON.stringify({ got, status: elements.status.textContent,
	left: elements.password.value + elements.secret.value })));
`

// shown is a page as a browser has it.
type shown struct {
	t                 *testing.T
	base, path, query string
	text              string
}

// page gets a page, which must have the headers that keep it to itself.
func (d *deployment) page(t *testing.T, base string, status int, path, query string) *shown {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the status of "+path, response.StatusCode, status)
	equal(t, "the type", response.Header.Get("Content-Type"), "text/html; charset=utf-8")
	equal(t, "sniffing", response.Header.Get("X-Content-Type-Options"), "nosniff")
	p := &shown{t, base, path, query, string(text)}
	nonce := regexp.MustCompile(`<script nonce="(\w{20,})">`).FindStringSubmatch(p.text)
	if nonce == nil {
		t.Fatalf("the page has no script: %s", text)
	}
	policy := response.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'nonce-" + nonce[1] + "'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q has no %s", policy, part)
		}
	}
	return p
}

// submit fills in a user, and a password or what else the page asks for, and runs its script.
func (p *shown) submit(user, secret string) gjson.Result {
	p.t.Helper()
	node, err := exec.LookPath("node")
	test.Needs(p.t, err)
	script := regexp.MustCompile(`(?s)<script nonce="\w+">(.*)</script>`).FindStringSubmatch(p.text)
	name := ""
	if field := regexp.MustCompile(`<input id="secret" name="(\w+)"`).FindStringSubmatch(p.text); field != nil {
		name = field[1]
	}
	dir := p.t.TempDir()
	page, runner := filepath.Join(dir, "page.js"), filepath.Join(dir, "run.cjs")
	for file, content := range map[string]string{page: script[1], runner: pageRunner} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(p.t.Context(), node, runner, page, p.base, p.path, p.query, user, secret, name).CombinedOutput()
	if err != nil || !json.Valid(out) {
		p.t.Fatalf("%v: %s", err, out)
	}
	return gjson.ParseBytes(out)
}

func TestTheLoginPage(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		for _, base := range d.urls {
			page := d.page(t, base, 200, "/_matrix/static/client/login/", "?device_id=PAGE&refresh_token=true")
			wrong := page.submit(alice.localpart, "wrong")
			equal(t, "what a wrong password gives", wrong.Get("got").Raw, "null")
			equal(t, "what is said", wrong.Get("status").Str, "wrong username or password")
			right := page.submit(alice.localpart, alice.password)
			equal(t, "the user", right.Get("got.user_id").Str, alice.userID)
			equal(t, "the device", right.Get("got.device_id").Str, "PAGE")
			equal(t, "a refresh token", right.Get("got.refresh_token").Str != "", true)
			c := d.anybody(t)
			c.took(right.Get("got"))
			equal(t, "whoami", c.must("GET", at("account", "whoami"), nil).Get("user_id").Str, alice.userID)
		}
	})
}

func authPath(stage string) string { return "/_matrix/client/v3/auth/" + stage + "/fallback/web" }

func TestAPasswordIsGivenOnAPage(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, mallory := d.user(t, "alice"), d.user(t, "mallory")
		path := authPath("m.login.password")
		for _, base := range d.urls {
			device := alice.login()
			begun := alice.call("DELETE", at("devices", device.deviceID), object{})
			session := begun.body.Get("session").Str
			only := object{"auth": object{"session": session}}
			before := alice.call("DELETE", at("devices", device.deviceID), only)
			equal(t, "the session before the page", before.status, 401)
			equal(t, "what is completed before the page", before.body.Get("completed").Raw+before.errcode(), "")

			page := d.page(t, base, 200, path, "?session="+session)
			for _, part := range []string{"log the device " + device.deviceID + " out", alice.userID} {
				if !strings.Contains(page.text, part) {
					t.Errorf("the page does not say %q: %s", part, page.text)
				}
			}
			wrong := page.submit("", "wrong")
			equal(t, "a wrong password", wrong.Get("got").Raw+wrong.Get("status").Str, "null"+"wrong username or password")
			equal(t, "the session after a wrong password", alice.call("DELETE", at("devices", device.deviceID), only).status, 401)
			right := page.submit("", alice.password)
			equal(t, "the right password", right.Get("got").Str, "done")
			// It is for this request of this user.
			mallory.refused(401, "M_FORBIDDEN", "DELETE", at("devices", device.deviceID), only)
			alice.refused(401, "M_FORBIDDEN", "DELETE", at("devices", alice.deviceID), only)
			alice.must("DELETE", at("devices", device.deviceID), only)
			device.refused(401, "M_UNKNOWN_TOKEN", "GET", at("account", "whoami"), nil)
			alice.refused(401, "M_FORBIDDEN", "DELETE", at("devices", device.deviceID), only)
			d.page(t, base, 404, path, "?session="+session)

			// Nobody makes others give their password for a request that the server knows to be nobody's.
			begun = d.anybody(t).call("POST", at("account", "password"), object{"new_password": "mallory's password"})
			query := "?session=" + begun.body.Get("session").Str
			d.page(t, base, 403, path, query)
			alice.refused(403, "M_FORBIDDEN", "POST", path+query, object{"password": alice.password})
			d.page(t, base, 404, authPath("m.login.recaptcha"), query)
			d.page(t, base, 404, path, "?session=x<script>")
			alice.refused(404, "M_NOT_FOUND", "POST", path+"?session=x", object{"password": alice.password})
		}
	})
}

func TestARegistrationIsConfirmedOnAPage(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) { confirmsRegistration(t, d, "m.login.dummy") })
	// A token is one of the configuration's: one deployment proves it.
	t.Run("with a token", func(t *testing.T) {
		confirmsRegistration(t, own(t, monolithSQLite, func(c *config.Config) {
			c.Matrix.Registration.Verification, c.Matrix.Registration.Tokens = config.VerificationToken, []string{"welcome"}
		}), "m.login.registration_token")
	})
}

// confirmsRegistration registers a user on a server that asks for one stage.
func confirmsRegistration(t *testing.T, d *deployment, stage string) {
	t.Helper()
	nobody := d.anybody(t)
	name := "page" + strings.ToLower(rand.Text()[:8])
	body := object{"username": name, "password": "long enough 1"}
	session := nobody.call("POST", at("register"), body).body.Get("session").Str
	body["auth"] = object{"session": session}
	equal(t, "the session alone", nobody.call("POST", at("register"), body).status, 401)
	page := d.page(t, d.urls[0], 200, authPath(stage), "?session="+session)
	nobody.refused(403, "M_FORBIDDEN", "POST", authPath("m.login.password")+"?session="+session, object{"password": "x"})
	if stage == "m.login.registration_token" {
		nobody.refused(403, "M_FORBIDDEN", "POST", authPath("m.login.dummy")+"?session="+session, object{})
		equal(t, "a wrong token", page.submit("", "wrong").Get("status").Str, "the registration token is not valid")
	}
	equal(t, "the page", page.submit("", "welcome").Get("got").Str, "done")
	made := nobody.must("POST", at("register"), body)
	equal(t, "the user", strings.HasPrefix(made.Get("user_id").Str, "@"+name+":"), true)
}
