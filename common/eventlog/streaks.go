package eventlog

import "sync"

// Streaks tell a consumer whether what it remembers is what is in the database: another process may have applied records of
// a partition meanwhile. The zero value is ready. It is safe for concurrent use.
type Streaks struct {
	mu       sync.Mutex
	followed map[int32]Followed
	last     int64
}

// Followed is how far this process has applied a partition. A streak ends where another process has applied records of
// it: what was remembered in it is old.
type Followed struct{ Seq, Streak int64 }

// Of continues the streak of a partition with the record of a sequence, or begins another one.
func (s *Streaks) Of(partition int32, seq int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.followed[partition]; f.Seq == seq-1 && f.Streak != 0 {
		return f.Streak
	}
	s.last++
	return s.last
}

// Follow notes how far a partition is applied.
func (s *Streaks) Follow(partition int32, f Followed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed == nil {
		s.followed = make(map[int32]Followed)
	}
	s.followed[partition] = f
}
