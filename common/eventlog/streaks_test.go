package eventlog_test

import (
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
)

func TestAStreakEndsWhereAnotherProcessWentOn(t *testing.T) {
	var s eventlog.Streaks
	first := s.Of(1, 5)
	s.Follow(1, eventlog.Followed{Seq: 9, Streak: first})
	if again := s.Of(1, 10); again != first {
		t.Errorf("the next record begins streak %d, want %d", again, first)
	}
	if other := s.Of(2, 10); other == first {
		t.Error("another partition has the same streak")
	}
	if later := s.Of(1, 12); later == first {
		t.Error("records that another process applied go unnoticed")
	}
}
