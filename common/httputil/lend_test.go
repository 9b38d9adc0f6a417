package httputil

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// large answers with a text of so many of the character that is asked for, alone or in an object.
func large(_ context.Context, r *Request) (any, error) {
	size, err := r.QueryInt("size", 0)
	if err != nil {
		return nil, err
	}
	body := append(r.Lend(size), '"')
	body = append(append(body, strings.Repeat(r.Query("c"), size-2)...), '"')
	if r.Query("object") != "" {
		return Object{"a": json.RawMessage(body), "b": json.RawMessage(body)}, nil
	}
	return json.RawMessage(body), nil
}

func TestAnswersInLentRoomAreNotMixed(t *testing.T) {
	server := httptest.NewServer(router(t, Route{Name: "large", Method: http.MethodGet, Path: "/large", Handler: large}))
	defer server.Close()
	var all sync.WaitGroup
	for c := range 8 {
		all.Go(func() {
			for i := range 24 {
				size := []string{"100", "20000", "16384", "16385", "300000", "5000000"}[i%6]
				if size == "5000000" && i > 6 {
					continue
				}
				letter := string(rune('a' + c))
				response, err := http.Get(server.URL + "/large?c=" + letter + "&size=" + size + "&object=" + strings.Repeat("x", i%2))
				if err != nil {
					t.Error(err)
					return
				}
				var got any
				err = json.NewDecoder(response.Body).Decode(&got)
				_ = response.Body.Close()
				if object, is := got.(map[string]any); is && object["a"] == object["b"] {
					got = object["a"]
				}
				text, _ := got.(string)
				if err != nil || len(text) < 90 || strings.Trim(text, letter) != "" {
					t.Errorf("an answer of %s times %s is another one: %v, %d characters", size, letter, err, len(text))
				}
			}
		})
	}
	all.Wait()
}

// leaving is the connection of a client that goes while it is answered.
type leaving struct{ http.ResponseWriter }

func (leaving) Write([]byte) (int, error) { return 0, errors.New("the stream is closed") }

// An HTTP/2 server may go on reading what a handler failed to write.
func TestWhatIsLentIsLostWithItsClient(t *testing.T) {
	var kept []byte
	r := router(t, Route{Name: "large", Method: http.MethodGet, Path: "/large", Handler: func(_ context.Context, r *Request) (any, error) {
		kept = append(r.Lend(3<<20), `"x"`...)
		return json.RawMessage(kept), nil
	}})
	request := httptest.NewRequest(http.MethodGet, "/large", nil)
	request.Proto, request.ProtoMajor = "HTTP/2.0", 2
	r.ServeHTTP(leaving{httptest.NewRecorder()}, request)
	other := new(Request)
	for range 100 {
		if unsafe.SliceData(other.Lend(3<<20)) == unsafe.SliceData(kept) {
			t.Fatal("what was not written whole is lent again")
		}
	}
	if !bytes.Equal(kept, []byte(`"x"`)) {
		t.Errorf("it has become %q", kept)
	}
}
