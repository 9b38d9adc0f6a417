package dendrite

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v2"

	"github.com/matrix-org/dendrite/common/config"
)

func TestSampleConfigIsTheDefaults(t *testing.T) {
	dir := t.TempDir()
	sample, err := config.Parse([]byte(SampleConfig), dir)
	if err != nil {
		t.Fatal(err)
	}
	shortest, err := config.Parse([]byte("version: 1\nmatrix: {server_name: example.org}\n"), dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := render(t, sample), render(t, shortest)
	if a != b {
		t.Errorf("dendrite-config.yaml differs from the defaults of common/config:\n%s\nand\n%s", a, b)
	}
	if want := filepath.Join(dir, "matrix_key.pem"); sample.Matrix.PrivateKey != want {
		t.Errorf("the key is looked for at %s, not at %s", sample.Matrix.PrivateKey, want)
	}
}

func TestSampleConfigHasEveryKey(t *testing.T) {
	var sample map[string]any
	if err := yaml.Unmarshal([]byte(SampleConfig), &sample); err != nil {
		t.Fatal(err)
	}
	has := make(map[string]bool)
	flatten(sample, "", has)
	for _, key := range keys(reflect.TypeFor[config.Config](), "") {
		if !has[key] {
			t.Errorf("dendrite-config.yaml does not have %s", key)
		}
	}
}

func render(t *testing.T, c *config.Config) string {
	t.Helper()
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func flatten(m map[string]any, prefix string, into map[string]bool) {
	for key, value := range m {
		into[prefix+key] = true
		if below, is := value.(map[any]any); is {
			inner := make(map[string]any, len(below))
			for k, v := range below {
				inner[k.(string)] = v
			}
			flatten(inner, prefix+key+".", into)
		}
	}
}

// keys lists the keys that a struct of the configuration has, but for those inside lists and tables.
func keys(t reflect.Type, prefix string) []string {
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		key, inline, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if inline != "" {
			continue
		}
		all = append(all, prefix+key)
		if f.Type.Kind() == reflect.Struct {
			all = append(all, keys(f.Type, prefix+key+".")...)
		}
	}
	return all
}
