package test

import (
	"context"
	"os"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test/parts"
)

func TestPostgresIsADatabaseOfTheTestsOwn(t *testing.T) {
	a, b := Postgres(t), Postgres(t)
	if a == b {
		t.Fatalf("two tests share %s", a)
	}
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: a}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKafkaComesBackAfterAKill(t *testing.T) {
	if os.Getenv(EnvKafka) == "" {
		Kafka(t) // skips where there can be none
	}
	k, err := parts.NewKafka(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := k.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPostgresRunsInAFolderThatOnlyRootCanEnter(t *testing.T) {
	p, err := parts.NewPostgres(t.Context(), t.TempDir(), "") // the folder above is closed to others
	if err == nil {
		err = p.Start(t.Context())
	}
	if err != nil {
		t.Skipf("this machine allows no user namespaces: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
}
