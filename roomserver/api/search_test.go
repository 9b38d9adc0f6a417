package api

import (
	"math"
	"testing"
)

func TestPlacesOfASearchGoThroughTheirTokens(t *testing.T) {
	for _, want := range []SearchPlace{{"$a_b-c", 0.06079271, 1, 2}, {"$x:y", 0, -5, 0},
		{"$x", math.MaxFloat64, math.MaxInt64, math.MaxInt32}} {
		if got, err := ParseSearchPlace(want.Token()); err != nil || *got != want {
			t.Errorf("%+v becomes %+v: %v", want, got, err)
		}
	}
	for _, wrong := range []string{"", "1", "10", "1_2_3", "1_2_3_", "1_2_3_x", "x_2_3_$a", "1_x_3_$a", "1_2_x_$a",
		"-1_2_3_$a", "1_2_NaN_$a", "1_2_Inf_$a",
		"9999999999_2_3_$a", "1_99999999999999999999_3_$a"} {
		if got, err := ParseSearchPlace(wrong); err == nil {
			t.Errorf("%q is %+v", wrong, got)
		}
	}
}
