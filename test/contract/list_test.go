package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elsewhere are the capabilities that are to come, by the files of the specification that describe them.
var elsewhere = map[string]string{
	"content-repo": "media", "authed-content-repo": "media",
	"sso_login_redirect": "single sign-on and OAuth", "oauth_server_metadata": "single sign-on and OAuth",
	"third_party_membership": "third-party identifiers",
}

const list = "../../docs/client-server-api.md"

// compareList checks that the list of operations in the documentation says what the run has shown. With UPDATE=1 it is written anew.
func compareList(t *testing.T, operations map[string]*operation, driven map[string]*calledWays) {
	t.Helper()
	type row struct{ path, method, text string }
	var rows []row
	done, all := 0, 0
	for at, o := range operations {
		if filepath.Base(filepath.Dir(o.file)) != "client-server" {
			continue
		}
		all++
		method, path, _ := strings.Cut(o.name, " ")
		text := ""
		if calls := driven[at]; calls != nil {
			done++
			text = fmt.Sprintf("| `%s` | yes | %d valid, %d invalid calls |", o.name, calls.valid, calls.invalid)
		} else {
			why := elsewhere[strings.TrimSuffix(filepath.Base(o.file), ".yaml")]
			if why != "" {
				why = ": " + why
			}
			text = fmt.Sprintf("| `%s` | no%s | |", o.name, why)
		}
		rows = append(rows, row{path, method, text})
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.path+" "+a.method, b.path+" "+b.method) })
	var b strings.Builder
	fmt.Fprintf(&b, `# Client-Server API

Which operations of the specification (v1.19) this server has: %d of %d. This list is made by a run of test/contract, which calls each of
them in a valid way and in the invalid ways that its description allows, and checks every answer against its schema:
`+"`UPDATE=1 go test ./test/contract`"+`. What the operations do is tested by test/blackbox. One that is missing answers M_UNRECOGNIZED.

| operation | done | tested by |
| --- | --- | --- |
`, done, all)
	for _, r := range rows {
		b.WriteString(r.text + "\n")
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(list, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	written, err := os.ReadFile(list)
	if err != nil || string(written) != b.String() {
		t.Errorf("docs/client-server-api.md is not what this run has shown (%v): make it anew with UPDATE=1 go test ./test/contract", err)
	}
}
