package eventlog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// A lease that is kept outlives a database that is away, says so meanwhile, and ends when another holder has it.
func TestALeaseThatIsKeptOutlivesTheDatabase(t *testing.T) {
	db := open(t)
	log, _ := newTopic(t, db, false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tenures, ended, done := make(chan *eventlog.Tenure, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- log.Keep(ctx, "work", func(ctx context.Context, tenure *eventlog.Tenure) error {
			tenures <- tenure
			<-ctx.Done()
			close(ended)
			return errors.New("lost")
		})
	}()
	tenure := <-tenures
	if !tenure.Confirmed() {
		t.Error("a lease that was just taken is not confirmed")
	}
	db.SetFailpoints(func(string) error { return errors.New("the database is away") })
	for tenure.Confirmed() {
	}
	select {
	case <-ended:
		t.Fatal("the work has ended although nobody else has the lease")
	default:
	}
	db.SetFailpoints(nil)
	for !tenure.Confirmed() {
	}
	take := db.Stmt(`UPDATE test_log_leases SET holder = 'another', epoch = epoch + 1`)
	err := db.Write(t.Context(), "take", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := take.Exec(ctx, tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || err.Error() != "lost" {
		t.Errorf("ended with %v", err)
	}
}

// Logs that were restored have other ids than before, those of consumers in other databases the same, and snapshots of
// which a consumer is ahead of its log are told from those that fit.
func TestRestoredLogsAreTheirOwn(t *testing.T) {
	owner := openURL(t, test.Postgres(t))
	follower := openURL(t, test.Postgres(t))
	_, topic := newTopic(t, owner, false)
	if err := appendTo(t, owner, topic, "key", 1); err != nil {
		t.Fatal(err)
	}
	part := eventlog.Partition("key")
	logID := func() string {
		t.Helper()
		heads, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things"})
		if err != nil {
			t.Fatal(err)
		}
		return heads.LogID
	}
	before := logID()
	if _, err := eventlog.New(t.Context(), follower, "follower", eventlog.Options{}); err != nil {
		t.Fatal(err)
	}
	exec := func(text string, args ...any) {
		t.Helper()
		s := follower.Stmt(text)
		err := follower.Write(t.Context(), "exec", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := s.Exec(ctx, tx, args...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO follower_log_offsets (consumer, part, log_id, seq) VALUES ('c', $1, $2, 1)`, int64(part), before)
	ahead := func() bool {
		t.Helper()
		dbs := []*sqlutil.DB{owner, follower}
		var snapshots []*sqlutil.Snapshot
		for _, db := range dbs {
			s, err := db.TakeSnapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			snapshots = append(snapshots, s)
		}
		is, err := eventlog.Ahead(t.Context(), snapshots, dbs)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if ahead() {
		t.Error("a consumer that has followed everything is called ahead")
	}
	exec(`UPDATE follower_log_offsets SET seq = 2`)
	if !ahead() {
		t.Error("a consumer that has followed what is not there is not ahead")
	}
	if err := eventlog.Renew(t.Context(), []*sqlutil.DB{owner, follower}); err != nil {
		t.Fatal(err)
	}
	var followed, now string
	read := func(db *sqlutil.DB, text string, into *string) {
		t.Helper()
		err := db.ReadOne(t.Context(), "ids", func(ctx context.Context, tx *sqlutil.Tx) error {
			return db.Stmt(text).QueryRow(ctx, tx).Scan(into)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read(follower, `SELECT log_id FROM follower_log_offsets`, &followed)
	read(owner, `SELECT log_id FROM test_log_topics`, &now)
	if now == before || now != followed {
		t.Errorf("the log was %s, is %s, and is followed as %s", before, now, followed)
	}
}

func openURL(t *testing.T, url string) *sqlutil.DB {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
