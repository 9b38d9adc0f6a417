package blackbox

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// answer is what the server said.
type answer struct {
	status int
	header http.Header
	body   gjson.Result
}

// errcode is the one of an error.
func (a answer) errcode() string { return a.body.Get("errcode").Str }

// object is the JSON of a request.
type object = map[string]any

// client is a user on a device, or nobody.
type client struct {
	t             *testing.T
	d             *deployment
	http          *http.Client
	base          string // the listener that is called; empty: each in turn
	userID        string
	deviceID      string
	token         string
	localpart     string
	password      string
	transactionID int
	as            url.Values // who a client of an application service acts as
}

// anybody is a client without an account.
func (d *deployment) anybody(t *testing.T) *client {
	return &client{t: t, d: d, http: &http.Client{Timeout: 60 * time.Second}}
}

// user registers an account with a name that begins so, and logs it in.
func (d *deployment) user(t *testing.T, name string) *client {
	t.Helper()
	c := d.anybody(t)
	c.localpart, c.password = name+"-"+strings.ToLower(rand.Text()[:8]), rand.Text()
	c.register(false)
	return c
}

// register makes the client's account through the shared secret, which needs no user-interactive authentication.
func (c *client) register(admin bool) {
	c.t.Helper()
	nonce := c.must("GET", "/_synapse/admin/v1/register", nil).Get("nonce").Str
	role := "notadmin"
	if admin {
		role = "admin"
	}
	mac := hmac.New(sha1.New, []byte(c.d.config.Matrix.Registration.SharedSecret))
	mac.Write([]byte(strings.Join([]string{nonce, c.localpart, c.password, role}, "\x00")))
	c.took(c.must("POST", "/_synapse/admin/v1/register", object{"nonce": nonce, "username": c.localpart, "password": c.password,
		"admin": admin, "mac": hex.EncodeToString(mac.Sum(nil))}))
}

// login makes another device of the same user.
func (c *client) login() *client {
	c.t.Helper()
	other := c.d.anybody(c.t)
	other.localpart, other.password = c.localpart, c.password
	other.took(other.must("POST", "/_matrix/client/v3/login", object{"type": "m.login.password", "password": c.password,
		"identifier": object{"type": "m.id.user", "user": c.localpart}}))
	return other
}

func (c *client) took(session gjson.Result) {
	c.userID, c.deviceID, c.token = session.Get("user_id").Str, session.Get("device_id").Str, session.Get("access_token").Str
}

// txn is a new transaction id.
func (c *client) txn() string {
	c.transactionID++
	return fmt.Sprintf("t%d", c.transactionID)
}

// call sends a request. body is nil, a []byte as it is, an io.Reader, or what becomes JSON.
func (c *client) call(method, path string, body any) answer {
	c.t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		content = bytes.NewReader(b)
	case io.Reader:
		content = b
	default:
		text, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	base := c.base
	if base == "" {
		base = c.d.url()
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, base+path, content)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(c.as) > 0 {
		r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&"+c.as.Encode(), "&")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, gjson.ParseBytes(text)}
}

// must is call for what must succeed.
func (c *client) must(method, path string, body any) gjson.Result {
	c.t.Helper()
	a := c.call(method, path, body)
	if a.status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body.Raw)
	}
	return a.body
}

// refused is call for what must fail in this way.
func (c *client) refused(status int, errcode, method, path string, body any) answer {
	c.t.Helper()
	a := c.call(method, path, body)
	if a.status != status || a.errcode() != errcode {
		c.t.Errorf("%s %s: %d %s, want %d %s", method, path, a.status, a.body.Raw, status, errcode)
	}
	return a
}

// at makes a path of /_matrix/client/v3 from segments, which are escaped.
func at(segments ...string) string {
	path := "/_matrix/client/v3"
	for _, s := range segments {
		path += "/" + url.PathEscape(s)
	}
	return path
}
