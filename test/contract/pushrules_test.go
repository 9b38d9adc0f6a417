package contract

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/syncapi/pushrules"
)

var definition = regexp.MustCompile("(?s)Definition:\n\n```json\n(.*?)```")

// The predefined rules are those of § Predefined Rules, in their order.
func TestPredefinedPushRulesAreThoseOfTheSpecification(t *testing.T) {
	documents, _ := specification(t)
	module, err := os.ReadFile(filepath.Join(documents.dir, "content/client-server-api/modules/push.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, override, _ := strings.Cut(string(module), "##### Default Override Rules")
	override, underride, has := strings.Cut(override, "##### Default Underride Rules")
	if !has {
		t.Fatal("the module has no predefined rules")
	}
	rules := pushrules.Defaults(aliceID)
	for kind, section := range map[pushrules.Kind]string{pushrules.Override: override, pushrules.Underride: underride} {
		all := definition.FindAllStringSubmatch(section, -1)
		if len(all) != len(rules[kind]) {
			t.Errorf("%d rules of kind %s, the specification has %d", len(rules[kind]), kind, len(all))
			continue
		}
		for i := range all {
			var got, want any
			if err := json.Unmarshal([]byte(text(rules[kind][i])), &got); err != nil {
				t.Fatal(err)
			}
			specified := strings.ReplaceAll(all[i][1], "[the user's Matrix ID]", aliceID)
			if err := json.Unmarshal([]byte(specified), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("rule %d of kind %s is %v, the specification has %v", i, kind, got, want)
			}
		}
	}
}
