package httputil

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// AnswerBudget bounds the memory of answers that are being made or written. Who wants to make a large one beyond it
// waits, in order, and then gets M_LIMIT_EXCEEDED. Answers that cannot be cut, such as a room's state, are counted as
// large as they have become.
type AnswerBudget struct {
	Each    int64         // bytes, for one caller
	Process int64         // bytes, for all of them; who has no answer under way may have one in as much again
	Wait    time.Duration // at most
	Waiting int           // requests that wait at once
}

// DefaultAnswerBudget is that of a process.
func DefaultAnswerBudget() AnswerBudget {
	return AnswerBudget{Each: 32 << 20, Process: 256 << 20, Wait: 10 * time.Second, Waiting: 1000}
}

const (
	// LargeAnswer is what is set aside for an answer that may be large: a full page, as it is read and as it is
	// written.
	LargeAnswer = 4 << 20
	// smallAnswer is not counted.
	smallAnswer = 64 << 10
)

// answers are those under way.
type answers struct {
	AnswerBudget
	mu      sync.Mutex
	held    map[string]int64 // by caller
	total   int64
	waiting []*waiter
}

type waiter struct {
	who   string
	bytes int64
	let   chan struct{} // closed when it is its turn
}

func newAnswers(b AnswerBudget) *answers {
	return &answers{AnswerBudget: b, held: make(map[string]int64)}
}

// fits tells whether a caller may hold so many bytes more.
func (a *answers) fits(who string, bytes int64) bool {
	if a.held[who] == 0 {
		return a.total+bytes <= 2*a.Process
	}
	return a.held[who]+bytes <= a.Each && a.total+bytes <= a.Process
}

// add counts bytes that a caller holds, or gives back, without a question.
func (a *answers) add(who string, bytes int64) {
	a.held[who] += bytes
	a.total += bytes
	if a.held[who] == 0 {
		delete(a.held, who)
	}
}

// take waits until a caller may hold so many bytes more.
func (a *answers) take(ctx context.Context, who string, bytes int64) error {
	a.mu.Lock()
	mine := func(w *waiter) bool { return w.who == who }
	if !slices.ContainsFunc(a.waiting, mine) && a.fits(who, bytes) {
		a.add(who, bytes)
		a.mu.Unlock()
		return nil
	}
	if len(a.waiting) >= a.Waiting {
		a.mu.Unlock()
		return mxerr.LimitExceeded(a.Wait)
	}
	w := &waiter{who, bytes, make(chan struct{})}
	a.waiting = append(a.waiting, w)
	a.mu.Unlock()
	late := time.NewTimer(a.Wait)
	defer late.Stop()
	var err error = mxerr.LimitExceeded(a.Wait)
	select {
	case <-w.let:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at := slices.Index(a.waiting, w)
	if at < 0 {
		return nil // its turn came in the same moment
	}
	a.waiting = slices.Delete(a.waiting, at, at+1)
	a.admit() // those behind it need not wait for it any more
	return err
}

// change counts an answer anew that turned out to have another size. An answer that is made is not refused.
func (a *answers) change(who string, by int64) {
	if by == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(who, by)
	if by < 0 {
		a.admit()
	}
}

// admit lets those in whose turn it is: each caller's in their order.
func (a *answers) admit() {
	stuck := make(map[string]bool)
	a.waiting = slices.DeleteFunc(a.waiting, func(w *waiter) bool {
		if stuck[w.who] || !a.fits(w.who, w.bytes) {
			stuck[w.who] = true
			return false
		}
		a.add(w.who, w.bytes)
		close(w.let)
		return true
	})
}

// Reserve waits until there is room to make an answer of so many bytes, in place of what was reserved before.
// M_LIMIT_EXCEEDED if there is none for a while. With 0 it only waits where the caller has too many answers under way.
func (r *Request) Reserve(bytes int64) error {
	if r.answers == nil {
		return nil
	}
	r.hold(0)
	if err := r.answers.take(r.Context(), r.payer(), bytes); err != nil {
		return err
	}
	r.held = bytes
	return nil
}

// hold counts an answer as it has become.
func (r *Request) hold(bytes int64) {
	if r.answers != nil {
		r.answers.change(r.payer(), bytes-r.held)
		r.held = bytes
	}
}

// payer is who answers and rates are counted for.
func (r *Request) payer() string {
	if r.Caller.UserID != "" {
		return string(r.Caller.UserID)
	}
	if r.Service != nil {
		return "application service " + r.Service.ID
	}
	return Network(ClientAddress(r.Request))
}

// size is about the memory of an answer.
func (r *Request) size(body []byte) int64 {
	size := int64(len(body))
	var lent int64
	for _, b := range r.lent {
		lent += int64(cap(*b))
	}
	if size = max(size, lent); size < smallAnswer {
		return 0
	}
	return size
}
