package blackbox

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

// ownPostgres is a deployment on a Postgres of its own.
func ownPostgres(t *testing.T, kind deploy.Kind) (*deployment, *parts.Postgres) {
	t.Helper()
	deploy.Chosen(t, kind)
	postgres, err := parts.NewPostgres(t.Context(), t.TempDir(), "")
	if err == nil {
		err = postgres.Start(t.Context())
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", test.ErrMissing, err)
	}
	test.Needs(t, err)
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	url, err := parts.CreateDatabase(t.Context(), postgres.URL, "dendrite")
	if err != nil {
		t.Fatal(err)
	}
	return own(t, kind, func(c *config.Config) { c.Database.ConnectionString = url }), postgres
}

// While Postgres is away, for a moment or for longer than a lease lasts, requests are answered with 503; when it is
// back, the same processes go on, and nothing is lost.
func TestAPostgresThatIsAwayEndsNobody(t *testing.T) {
	t.Parallel()
	for kind, away := range map[deploy.Kind][]time.Duration{
		deploy.MonolithPostgres: {3 * time.Second, 9 * time.Second},
		polylith:                {9 * time.Second},
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			d, postgres := ownPostgres(t, kind)
			seed := test.Seed(t)
			l := newLoad(t, d, seed)
			l.start()
			t.Cleanup(l.stop)
			for _, long := range away {
				l.steady(time.Second)
				before := l.acknowledged()
				if err := postgres.Stop(); err != nil {
					t.Fatal(err)
				}
				back := time.Now().Add(long)
				w := l.writers[0]
				l.until(time.Now().Add(recoverWithin), "a request is answered with 503", func() bool {
					return w.call("PUT", at("rooms", l.rooms[0], "state", "x.away", w.name),
						object{}).status == http.StatusServiceUnavailable
				})
				l.until(time.Now().Add(recoverWithin), "health says 503", func() bool {
					return parts.Healthy("http://"+d.config.Listen.For(d.mainProcess()).Internal)(t.Context()) != nil
				})
				l.steady(time.Until(back))
				l.resetPulses()
				if err := postgres.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.recover("Postgres")
				t.Logf("away for %v: %d events meanwhile and after", long, l.acknowledged()-before)
			}
			l.finish()
			l.stop()
			l.check(t)
			for _, name := range d.processNames() {
				select {
				case <-d.process(t, name).Ended():
					t.Errorf("%s has ended", name)
				default:
				}
			}
		})
	}
}

// mainProcess is the one that writes rooms.
func (d *deployment) mainProcess() string {
	if d.kind == polylith {
		return "roomserver"
	}
	return "monolith"
}

func (d *deployment) processNames() []string {
	if d.kind == polylith {
		return config.Components()
	}
	return []string{"monolith"}
}

// A monolith whose lease another one has taken has nothing to say any more, and says so.
func TestAMonolithEndsWhenAnotherHasTakenOver(t *testing.T) {
	t.Parallel()
	deploy.Chosen(t, deploy.MonolithPostgres)
	d := own(t, deploy.MonolithPostgres, nil)
	db, err := sql.Open("postgres", d.config.Database.ConnectionString)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `UPDATE roomserver_log_leases
		SET holder = 'another', epoch = epoch + 1, expires = expires + 3600000 WHERE name = 'monolith'`)
	if err != nil {
		t.Fatal(err)
	}
	server := d.process(t, "monolith")
	if status := server.Status(); status != 1 {
		t.Errorf("ended with status %d", status)
	}
	log, err := os.ReadFile(server.Log)
	if err != nil || !strings.Contains(string(log), "another monolith has taken over the database") {
		t.Errorf("its last words: %v %s", err, log[max(0, len(log)-1000):])
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE roomserver_log_leases SET expires = 0
		WHERE name = 'monolith'`); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Errorf("with the lease given back: %v", err)
	}
}
