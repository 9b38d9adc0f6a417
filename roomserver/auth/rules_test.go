package auth

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// published has the numbers of all rules that decide something, as the specification of each room version prints them, and of
// those that only say "otherwise, allow".
var published = []struct {
	versions, rules, otherwise string
}{
	{"1 2", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2 5.1 5.2.1 5.2.2 5.2.3 5.2.4 5.2.5 5.2.6
		5.3.1.1 5.3.1.2 5.3.1.3 5.3.1.4 5.3.1.5 5.3.1.6 5.3.1.7 5.3.1.8 5.3.2 5.3.3 5.3.4 5.3.5 5.4.1 5.4.2 5.4.3 5.4.4 5.4.5
		5.5.1 5.5.2 5.5.3 5.6 6 7.1 8 9 10.1 10.2 10.3.1 10.3.2 10.4.1 10.5.1 10.6.1 10.7.1 11.1 11.2 11.3`, "1.5 4.3 10.8 12"},
	{"3 4 5", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2 5.1 5.2.1 5.2.2 5.2.3 5.2.4 5.2.5 5.2.6
		5.3.1.1 5.3.1.2 5.3.1.3 5.3.1.4 5.3.1.5 5.3.1.6 5.3.1.7 5.3.1.8 5.3.2 5.3.3 5.3.4 5.3.5 5.4.1 5.4.2 5.4.3 5.4.4 5.4.5
		5.5.1 5.5.2 5.5.3 5.6 6 7.1 8 9 10.1 10.2 10.3.1 10.3.2 10.4.1 10.5.1 10.6.1 10.7.1`, "1.5 4.3 10.8 11"},
	{"6", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2.1 4.2.2 4.2.3 4.2.4 4.2.5 4.2.6
		4.3.1.1 4.3.1.2 4.3.1.3 4.3.1.4 4.3.1.5 4.3.1.6 4.3.1.7 4.3.1.8 4.3.2 4.3.3 4.3.4 4.3.5 4.4.1 4.4.2 4.4.3 4.4.4 4.4.5
		4.5.1 4.5.2 4.5.3 4.6 5 6.1 7 8 9.1 9.2 9.3.1 9.3.2 9.4.1 9.5.1 9.6.1 9.7.1`, "1.5 9.8 10"},
	{"7", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2.1 4.2.2 4.2.3 4.2.4 4.2.5 4.2.6
		4.3.1.1 4.3.1.2 4.3.1.3 4.3.1.4 4.3.1.5 4.3.1.6 4.3.1.7 4.3.1.8 4.3.2 4.3.3 4.3.4 4.3.5 4.4.1 4.4.2 4.4.3 4.4.4 4.4.5
		4.5.1 4.5.2 4.5.3 4.6.1 4.6.2 4.6.3 4.6.4 4.7 5 6.1 7 8 9.1 9.2 9.3.1 9.3.2 9.4.1 9.5.1 9.6.1 9.7.1`, "1.5 9.8 10"},
	{"8 9", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2.1 4.3.1 4.3.2 4.3.3 4.3.4 4.3.5.1 4.3.5.2 4.3.6 4.3.7
		4.4.1.1 4.4.1.2 4.4.1.3 4.4.1.4 4.4.1.5 4.4.1.6 4.4.1.7 4.4.1.8 4.4.2 4.4.3 4.4.4 4.4.5 4.5.1 4.5.2 4.5.3 4.5.4 4.5.5
		4.6.1 4.6.2 4.6.3 4.7.1 4.7.2 4.7.3 4.7.4 4.8 5 6.1 7 8 9.1 9.2 9.3.1 9.3.2 9.4.1 9.5.1 9.6.1 9.7.1`, "1.5 4.3.5.3 9.8 10"},
	{"10", `1.1 1.2 1.3 1.4 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2.1 4.3.1 4.3.2 4.3.3 4.3.4 4.3.5.1 4.3.5.2 4.3.6 4.3.7
		4.4.1.1 4.4.1.2 4.4.1.3 4.4.1.4 4.4.1.5 4.4.1.6 4.4.1.7 4.4.1.8 4.4.2 4.4.3 4.4.4 4.4.5 4.5.1 4.5.2 4.5.3 4.5.4 4.5.5
		4.6.1 4.6.2 4.6.3 4.7.1 4.7.2 4.7.3 4.7.4 4.8 5 6.1 7 8 9.1 9.2 9.3 9.4 9.5.1 9.5.2 9.6.1 9.7.1 9.8.1 9.9.1`, "1.5 4.3.5.3 9.10 10"},
	{"11", `1.1 1.2 1.3 2.1 2.2 2.3 2.4 2.5 3 4.1 4.2.1 4.3.1 4.3.2 4.3.3 4.3.4 4.3.5.1 4.3.5.2 4.3.6 4.3.7
		4.4.1.1 4.4.1.2 4.4.1.3 4.4.1.4 4.4.1.5 4.4.1.6 4.4.1.7 4.4.1.8 4.4.2 4.4.3 4.4.4 4.4.5 4.5.1 4.5.2 4.5.3 4.5.4 4.5.5
		4.6.1 4.6.2 4.6.3 4.7.1 4.7.2 4.7.3 4.7.4 4.8 5 6.1 7 8 9.1 9.2 9.3 9.4 9.5.1 9.5.2 9.6.1 9.7.1 9.8.1 9.9.1`, "1.4 4.3.5.3 9.10 10"},
	{"12", `1.1 1.2 1.3 1.4 2 3.1 3.2 3.3 3.4 4 5.1 5.2.1 5.3.1 5.3.2 5.3.3 5.3.4 5.3.5.1 5.3.5.2 5.3.6 5.3.7
		5.4.1.1 5.4.1.2 5.4.1.3 5.4.1.4 5.4.1.5 5.4.1.6 5.4.1.7 5.4.1.8 5.4.2 5.4.3 5.4.4 5.4.5 5.5.1 5.5.2 5.5.3 5.5.4 5.5.5
		5.6.1 5.6.2 5.6.3 5.7.1 5.7.2 5.7.3 5.7.4 5.8 6 7.1 8 9
		10.1 10.2 10.3 10.4 10.5 10.6.1 10.6.2 10.7.1 10.8.1 10.9.1 10.10.1`, "1.5 5.3.5.3 10.11 11"},
}

// A ruleCase is a rule at work. Both sides return the verdict of the checks; pass must be allowed and fail rejected by the rule,
// or by the rule failsBy where the rule itself can only allow.
type ruleCase struct {
	rule       rule
	name       string
	in         func(*roomversion.Properties) bool // nil: wherever the rule is
	pass, fail func(*world) error
	failsBy    rule
}

func allCases() []ruleCase {
	return slices.Concat(createCases(), authEventCases(), joinCases(), inviteCases(), leaveCases(), eventCases(), powerCases())
}

func TestRules(t *testing.T) {
	for _, v := range roomversion.All() {
		props, _ := roomversion.Get(v)
		for _, c := range allCases() {
			num := number(v, c.rule)
			if num == "" || c.in != nil && !c.in(props) {
				continue
			}
			name := "v" + string(v) + "/" + num
			if c.name != "" {
				name += "/" + c.name
			}
			if c.pass != nil {
				t.Run(name+"/pass", func(t *testing.T) {
					if err := c.pass(newWorld(t, v, nil)); err != nil {
						t.Errorf("rejected: %v", err)
					}
				})
			}
			if c.fail != nil {
				t.Run(name+"/fail", func(t *testing.T) {
					want := num
					if c.failsBy != "" {
						want = number(v, c.failsBy)
					}
					expectRule(t, c.fail(newWorld(t, v, nil)), v, want)
				})
			}
		}
	}
}

func expectRule(t *testing.T, err error, v id.RoomVersion, num string) {
	t.Helper()
	var verdict *Error
	if !errors.As(err, &verdict) || verdict.Rule != num || verdict.Version != v {
		t.Errorf("want rejection by rule %s of version %s, have: %v", num, v, err)
		return
	}
	if answer := (*mxerr.Error)(nil); !errors.As(err, &answer) || !strings.Contains(answer.Error(), verdict.Message) {
		t.Errorf("a client is told %v", answer)
	}
}

func TestEveryPublishedRuleHasCases(t *testing.T) {
	var seen []id.RoomVersion
	for _, p := range published {
		for v := range strings.FieldsSeq(p.versions) {
			v := id.RoomVersion(v)
			seen = append(seen, v)
			props, _ := roomversion.Get(v)
			var leaves []string
			leafNumbers(props, tree, v, &leaves)
			want := strings.Fields(p.rules)
			slices.Sort(leaves)
			slices.Sort(want)
			if !slices.Equal(leaves, want) {
				t.Errorf("version %s has rules\n%v, published are\n%v", v, leaves, want)
			}
			passes, fails := map[string]bool{}, map[string]bool{}
			for _, c := range allCases() {
				if num := number(v, c.rule); c.in == nil || c.in(props) {
					passes[num] = passes[num] || c.pass != nil
					fails[num] = fails[num] || c.fail != nil
				}
			}
			for _, num := range want {
				if !passes[num] || !fails[num] {
					t.Errorf("rule %s of version %s: has a passing case %v, a failing one %v", num, v, passes[num], fails[num])
				}
			}
			for num := range strings.FieldsSeq(p.otherwise) {
				if slices.Contains(leaves, num) {
					t.Errorf("rule %s of version %s allows, but is a rule that decides", num, v)
				}
			}
		}
	}
	if !slices.Equal(seen, roomversion.All()) {
		t.Errorf("versions %v have published rules, known are %v", seen, roomversion.All())
	}
}

// leafNumbers lists the rules without rules below them.
func leafNumbers(props *roomversion.Properties, nodes []node, v id.RoomVersion, into *[]string) {
	for _, n := range nodes {
		if n.in != nil && !n.in(props) {
			continue
		}
		if len(n.sub) == 0 {
			*into = append(*into, number(v, n.rule))
		}
		leafNumbers(props, n.sub, v, into)
	}
}
