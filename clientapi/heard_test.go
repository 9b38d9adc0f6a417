package clientapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	appservice "github.com/matrix-org/dendrite/appservice/api"
)

func TestItIsToldNowAndThenThatAServiceIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(map[string]int)
		app := &appservice.AppserviceAPI{NoteAlive: func(_ context.Context, q appservice.NoteAliveRequest) (appservice.Empty, error) {
			told[q.Service]++
			return appservice.Empty{}, errors.New("that it fails is no matter")
		}}
		h := newHeard(app, logrus.NewEntry(logrus.New()), time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.run(ctx)
		want := 0
		for range 3 {
			for range 10 {
				h.note("a")
				h.note("b")
				synctest.Wait()
			}
			if want++; told["a"] != want || told["b"] != want {
				t.Errorf("told %v, want %d each", told, want)
			}
			time.Sleep(heardEvery) // of the bubble's clock
		}
	})
}
