package httputil

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// kitchen makes large answers, each when it is told to.
type kitchen struct {
	*Router
	mu            sync.Mutex
	running, most int
	served        []string
	let           chan struct{}
	bytes         int
}

func newKitchen(t *testing.T, b AnswerBudget) *kitchen {
	t.Helper()
	k := &kitchen{let: make(chan struct{}), bytes: 2}
	handler := func(_ context.Context, r *Request) (any, error) {
		k.mu.Lock()
		k.running++
		k.most = max(k.most, k.running)
		k.served = append(k.served, r.Query("n"))
		k.mu.Unlock()
		<-k.let
		k.mu.Lock()
		k.running--
		k.mu.Unlock()
		return Raw{Body: make([]byte, k.bytes)}, nil
	}
	var err error
	k.Router, err = NewRouter([]Route{
		{Method: "GET", Path: "/large", Name: "large", Auth: AuthOptional, Large: true, Handler: handler},
		{Method: "GET", Path: "/small", Name: "small", Auth: AuthOptional, Handler: says("small")}},
		RouterDeps{Auth: tokens{}, Log: quiet(), Answers: b})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// until waits for something that goroutines do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func (k *kitchen) queue() (waiting int, held int64) {
	k.answers.mu.Lock()
	defer k.answers.mu.Unlock()
	return len(k.answers.waiting), k.answers.total
}

func (k *kitchen) atWork() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running
}

func TestLargeAnswersOfOneCallerAreMadeInTurn(t *testing.T) {
	for _, n := range []int{10, 100} {
		k := newKitchen(t, AnswerBudget{Each: LargeAnswer, Process: 100 * LargeAnswer, Wait: time.Hour, Waiting: 1000})
		var all sync.WaitGroup
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
			all.Go(func() {
				if w := ask(k, "GET", "/large?n="+fmt.Sprint(i), "",
					"Authorization", "Bearer alice"); w.Code != http.StatusOK {
					t.Errorf("%d: %d %s", i, w.Code, w.Body)
				}
			})
			until(t, "a request takes its place", func() bool {
				waiting, _ := k.queue()
				return waiting+k.atWork() == i+1
			})
		}
		if w := ask(k, "GET", "/small", "", "Authorization", "Bearer alice"); w.Code != http.StatusOK {
			t.Errorf("a small answer waits, too: %d", w.Code)
		}
		for i := range n {
			k.let <- struct{}{}
			until(t, "the next one begins", func() bool { return k.atWork() == min(1, n-i-1) })
		}
		all.Wait()
		if k.most != 1 || !slices.Equal(k.served, want) {
			t.Errorf("%d requests: %d at once, in the order %v", n, k.most, k.served)
		}
		if waiting, held := k.queue(); waiting != 0 || held != 0 || len(k.answers.held) != 0 {
			t.Errorf("%d requests: in the end %d wait and %d bytes are held", n, waiting, held)
		}
	}
}

func TestTheProcessHasABudgetOfAnswers(t *testing.T) {
	for _, n := range []int{10, 100} {
		k := newKitchen(t, AnswerBudget{Each: 2 * LargeAnswer, Process: 3 * LargeAnswer, Wait: time.Hour,
			Waiting: 1000})
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				r := httptest.NewRequest("GET", "/large", nil)
				r.RemoteAddr = fmt.Sprintf("198.51.100.%d:1", i)
				k.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		until(t, "all are there", func() bool {
			waiting, _ := k.queue()
			return waiting+k.atWork() == n
		})
		for range n {
			k.let <- struct{}{}
		}
		all.Wait()
		if k.most != 6 { // of callers who have none, as much again
			t.Errorf("%d callers: %d answers at once", n, k.most)
		}
	}
}

func TestWhoWaitsForRoomIsToldToComeBack(t *testing.T) {
	k := newKitchen(t, AnswerBudget{Each: LargeAnswer, Process: 100 * LargeAnswer, Wait: time.Millisecond,
		Waiting: 1000})
	var all sync.WaitGroup
	all.Go(func() { ask(k, "GET", "/large", "", "Authorization", "Bearer alice") })
	until(t, "the first is at work", func() bool { return k.atWork() == 1 })
	w := ask(k, "GET", "/large", "", "Authorization", "Bearer alice")
	if w.Code != http.StatusTooManyRequests || errcode(t, w) != "M_LIMIT_EXCEEDED" ||
		gjson.GetBytes(w.Body.Bytes(), "retry_after_ms").Int() <= 0 {
		t.Errorf("a second large answer: %d %s", w.Code, w.Body)
	}
	all.Go(func() { // whose client goes does not wait
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := httptest.NewRequestWithContext(ctx, "GET", "/large", nil)
		r.Header.Set("Authorization", "Bearer alice")
		k.ServeHTTP(httptest.NewRecorder(), r)
	})
	all.Go(func() { ask(k, "GET", "/large", "", "Authorization", "Bearer guest") }) // another user is not held up
	until(t, "the other user is served", func() bool {
		waiting, _ := k.queue()
		return k.atWork() == 2 && waiting == 0
	})
	close(k.let)
	all.Wait()
}

// held is a client that does not read until it is told to.
type held struct {
	*httptest.ResponseRecorder
	writing chan<- struct{}
	read    <-chan struct{}
}

func (h held) Write(p []byte) (int, error) {
	h.writing <- struct{}{}
	<-h.read
	return len(p), nil
}

// An answer is counted, as large as it has become, until its client has read it.
func TestAnswersThatAreNotReadCount(t *testing.T) {
	k := newKitchen(t, AnswerBudget{Each: 16 << 20, Process: 1 << 30, Wait: time.Millisecond, Waiting: 1000})
	k.bytes = 6 << 20
	close(k.let)
	writing := make(chan struct{})
	var unread []chan struct{}
	var all sync.WaitGroup
	begun, refused := 0, 0
	for range 40 {
		read := make(chan struct{})
		w := held{httptest.NewRecorder(), writing, read}
		all.Go(func() {
			r := httptest.NewRequest("GET", "/large", nil)
			r.Header.Set("Authorization", "Bearer alice")
			k.ServeHTTP(w, r)
		})
		<-writing
		if w.Code == http.StatusOK {
			begun++
			unread = append(unread, read)
		} else {
			refused++
			close(read)
		}
	}
	if _, bytes := k.queue(); begun != 3 || refused != 37 || bytes > 18<<20 {
		t.Errorf("of 40 answers of 6 MiB %d are made for a client that reads none, which are %d bytes", begun, bytes)
	}
	for _, read := range unread {
		close(read)
	}
	all.Wait()
	if _, bytes := k.queue(); bytes != 0 {
		t.Errorf("%d bytes are held in the end", bytes)
	}
}
