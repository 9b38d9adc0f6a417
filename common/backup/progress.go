package backup

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// Progress tells people how far something is: with a bar on a terminal, and with a line for each stage elsewhere.
type Progress struct {
	ctx      context.Context
	w        io.Writer
	terminal bool
}

// NewProgress writes to w. What is copied or read meanwhile is broken off when ctx ends.
func NewProgress(ctx context.Context, w io.Writer) *Progress {
	p := &Progress{ctx: ctx, w: w}
	if f, is := w.(*os.File); is {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// Stage is a part of the work.
type Stage struct {
	p           *Progress
	what        string
	done, total int64 // bytes
	shown       int64 // percent
}

// Stage begins one of so many bytes; 0 if that is not known.
func (p *Progress) Stage(what string, total int64) *Stage {
	return &Stage{p: p, what: what, total: total, shown: -1}
}

// Write counts what is written. It fails when the work is no longer wanted.
func (s *Stage) Write(b []byte) (int, error) {
	s.At(s.done+int64(len(b)), s.total)
	return len(b), s.p.ctx.Err()
}

// At says how far the stage is.
func (s *Stage) At(done, total int64) {
	s.done, s.total = done, total
	if percent := s.percent(); s.p.terminal && percent != s.shown {
		s.shown = percent
		const width = 40
		full := int(percent) * width / 100
		bar := strings.Repeat("#", full) + strings.Repeat(".", width-full)
		fmt.Fprintf(s.p.w, "\r%-24s [%s] %3d %% of %s ", s.what, bar, percent, bytesOf(total))
	}
}

func (s *Stage) percent() int64 {
	if s.total <= 0 {
		return 0
	}
	return min(100*s.done/s.total, 100)
}

// End says that the stage is over.
func (s *Stage) End() {
	if s.p.terminal {
		s.At(max(s.done, s.total), max(s.done, s.total))
		fmt.Fprintln(s.p.w)
		return
	}
	fmt.Fprintf(s.p.w, "%s: %s\n", s.what, bytesOf(s.done))
}

func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KB", (n+1023)/1024)
}
