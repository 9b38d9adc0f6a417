package input

import "testing"

func TestAStreakEndsWhereAnotherProcessWentOn(t *testing.T) {
	in := &Input{followed: make(map[int32]followed)}
	first := in.streak(1, 5)
	in.follow(1, followed{9, first})
	if again := in.streak(1, 10); again != first {
		t.Errorf("the next record begins streak %d, want %d", again, first)
	}
	if other := in.streak(2, 10); other == first {
		t.Error("another partition has the same streak")
	}
	if later := in.streak(1, 12); later == first {
		t.Error("records that another process applied go unnoticed")
	}
}
