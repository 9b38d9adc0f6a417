package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// snapshotTries is how often snapshots of several databases are taken until no component is ahead of one that it
// follows.
const snapshotTries = 100

// dumpPostgres writes databases by pg_dump, all as they are at one moment, or at moments of which none is ahead of
// another.
func dumpPostgres(ctx context.Context, work string, all []Database, p *Progress) (dumps []Dump, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	program, err := program("pg_dump")
	if err != nil {
		return nil, err
	}
	// Who follows others comes before them: roomserver, whom most follow, is the last.
	slices.SortStableFunc(all, func(a, b Database) int { return followed(a) - followed(b) })
	dbs, closeAll, err := openAll(ctx, all)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return nil, err
	}
	snapshots, err := takeSnapshots(ctx, dbs)
	for _, s := range snapshots {
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	for i, db := range all {
		d := Dump{File: fmt.Sprintf("database-%d.pgdump", i+1), Kind: "postgres", Components: db.Components}
		if err := dump(ctx, program, db.Connection, snapshots[i], filepath.Join(work, d.File), p); err != nil {
			return nil, err
		}
		dumps = append(dumps, d)
	}
	return dumps, nil
}

// followed is the greater, the more components follow one that is in the database.
func followed(db Database) int {
	switch {
	case slices.Contains(db.Components, "roomserver"):
		return 2
	case slices.Contains(db.Components, "clientapi"):
		return 1
	}
	return 0
}

func openAll(ctx context.Context, all []Database) (dbs []*sqlutil.DB, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, db := range dbs {
			errs = append(errs, db.Close())
		}
		return errors.Join(errs...)
	}
	for _, d := range all {
		db, err := sqlutil.Open(ctx, sqlutil.Options{ConnectionString: d.Connection, MaxOpenConns: 2, Look: true},
			sqlutil.Deps{})
		if err != nil {
			return dbs, closeAll, err
		}
		dbs = append(dbs, db)
	}
	return dbs, closeAll, nil
}

func takeSnapshots(ctx context.Context, dbs []*sqlutil.DB) (snapshots []*sqlutil.Snapshot, err error) {
	for range snapshotTries {
		snapshots = nil
		for _, db := range dbs {
			s, err := db.TakeSnapshot(ctx)
			if err != nil {
				return snapshots, err
			}
			snapshots = append(snapshots, s)
		}
		ahead, err := eventlog.Ahead(ctx, snapshots, dbs)
		if err != nil || !ahead {
			return snapshots, err
		}
		for _, s := range snapshots {
			if err := s.Close(); err != nil {
				return nil, err
			}
		}
	}
	return nil, errors.New("the databases change too fast to be read at one moment: stop the server for the backup")
}

var dumping = regexp.MustCompile(`dumping contents of table "[^".]+\.([^"]+)"`)

func dump(ctx context.Context, program, connection string, s *sqlutil.Snapshot, file string, p *Progress) error {
	var total, done, current int64
	for _, size := range s.Sizes {
		total += size
	}
	stage := p.Stage("database", total)
	command, err := postgresCommand(ctx, connection, program, "--format=custom", "--compress=1", "--no-owner",
		"--no-privileges", "--verbose", "--snapshot="+s.ID, "--file="+file)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // pg_dump keeps its mode
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	said, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("pg_dump: %w", err)
	}
	var words bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(said, &words))
	for lines.Scan() {
		if table := dumping.FindStringSubmatch(lines.Text()); table != nil {
			done += current
			current = s.Sizes[table[1]]
			stage.At(done, total)
		}
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("pg_dump: %w: %s", err, lastLines(words.String()))
	}
	stage.At(total, total)
	stage.End()
	return syncFile(file)
}

// restorePostgres fills an empty database.
func restorePostgres(ctx context.Context, file, connection string) error {
	program, err := program("pg_restore")
	if err != nil {
		return err
	}
	command, err := postgresCommand(ctx, connection, program, "--no-owner", "--no-privileges", "--exit-on-error",
		"--single-transaction")
	if err != nil {
		return err
	}
	command.Args = append(command.Args, file)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_restore: %w: %s", err, lastLines(string(out)))
	}
	return nil
}

// postgresCommand is a program of Postgres for a database. The password is not among its arguments, which every user
// can see.
func postgresCommand(ctx context.Context, connection, program string, args ...string) (*exec.Cmd, error) {
	u, err := url.Parse(connection)
	if err != nil {
		return nil, errors.New("the connection string of the database is no URL")
	}
	environment := os.Environ()
	if password, has := u.User.Password(); has {
		environment = append(environment, "PGPASSWORD="+password)
		u.User = url.User(u.User.Username())
	}
	command := exec.CommandContext(ctx, program, append(args, "--dbname="+u.String())...)
	command.Env = environment
	return command, nil
}

// program finds a program of Postgres: on the PATH, or where Debian puts them.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is not on this machine: install the client programs of Postgres, "+
			"such as with apt-get install postgresql-client, in a version that is not older than the server's", name)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// lastLines is the end of what a program has said.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
