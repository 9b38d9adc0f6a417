package parts

import (
	"archive/zip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	_ "github.com/lib/pq" // the driver of the probe
)

// Postgres is a cluster.
type Postgres struct {
	*Server
	// URL is the connection string of its administrator, for the database postgres.
	URL string
}

const (
	admin = "dendrite"
	// embedded is where Postgres comes from on a machine that has none: initdb, pg_ctl and postgres, and nothing to install.
	embedded = "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-%s-%s/15.10.0/embedded-postgres-binaries-%[1]s-%[2]s-15.10.0.jar"
)

// NewPostgres prepares a cluster in a folder, which is made if it is not there; an existing cluster is used as it is. An empty port
// is any that is free.
func NewPostgres(ctx context.Context, dir, port string) (*Postgres, error) {
	bin, err := postgresBinaries(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	who, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		err := run(ctx, dir, who, filepath.Join(bin, "initdb"), "-D", data, "-U", admin, "--auth=trust", "--encoding=UTF8", "--no-locale")
		if err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
	}
	if port == "" {
		if port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	url := fmt.Sprintf("postgresql://%s@127.0.0.1:%s/postgres?sslmode=disable", admin, port)
	return &Postgres{URL: url, Server: &Server{
		Name: "postgres",
		Command: []string{filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-c", "unix_socket_directories=",
			"-c", "max_connections=600", "-c", "shared_buffers=128MB"},
		Dir: dir, user: who, Signal: "INT", Log: filepath.Join(dir, "postgres.log"),
		Probe: func(ctx context.Context) error { return query(ctx, url, "") },
	}}, nil
}

// CreateDatabase makes a database, if it is not there, and returns its connection string.
func CreateDatabase(ctx context.Context, adminURL, name string) (string, error) {
	var there bool
	db, err := sql.Open("postgres", adminURL)
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&there); err != nil {
		return "", fmt.Errorf("postgres: %w", err)
	}
	if !there {
		if _, err := db.ExecContext(ctx, `CREATE DATABASE "`+name+`" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'`); err != nil {
			return "", fmt.Errorf("postgres: making the database %s: %w", name, err)
		}
	}
	return withDatabase(adminURL, name)
}

// DropDatabase removes a database with whoever is connected to it.
func DropDatabase(ctx context.Context, adminURL, name string) error {
	return query(ctx, adminURL, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`)
}

// query runs a statement, or only connects if there is none.
func query(ctx context.Context, url, statement string) error {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer db.Close()
	if statement == "" {
		return db.PingContext(ctx)
	}
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// postgresBinaries finds the folder with the programs of Postgres: on the PATH, where Debian puts them, or downloaded.
func postgresBinaries(ctx context.Context) (string, error) {
	var folders []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		folders = append(folders, filepath.Dir(initdb))
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.Sort(debian)
	slices.Reverse(debian)
	for _, dir := range append(folders, debian...) {
		if hasPrograms(dir, "initdb", "postgres") {
			return dir, nil
		}
	}
	return downloadPostgres(ctx)
}

func hasPrograms(dir string, names ...string) bool {
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

func downloadPostgres(ctx context.Context) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "postgres")
	err = inNewFolder(folder, func(dir string) error {
		fmt.Fprintln(os.Stderr, "There is no Postgres on this machine: downloading one (15 MB) to", folder)
		arch := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
		jar := filepath.Join(dir, "postgres.jar")
		if err := download(ctx, fmt.Sprintf(embedded, runtime.GOOS, arch), jar); err != nil {
			return err
		}
		archive, err := unzipTar(jar, dir)
		if err != nil {
			return err
		}
		if err := run(ctx, dir, identity{}, "tar", "xJf", archive); err != nil {
			return fmt.Errorf("unpacking Postgres (tar and xz are needed): %w", err)
		}
		return errors.Join(os.Remove(archive), os.Remove(jar))
	})
	if err != nil {
		return "", fmt.Errorf("getting Postgres: %w: or install it, as with apt-get install postgresql", err)
	}
	return filepath.Join(folder, "bin"), nil
}

// unzipTar takes the archive out of the jar.
func unzipTar(jar, dir string) (string, error) {
	z, err := zip.OpenReader(jar)
	if err != nil {
		return "", err
	}
	defer z.Close()
	for _, entry := range z.File {
		if path.Ext(entry.Name) != ".txz" {
			continue
		}
		from, err := entry.Open()
		if err != nil {
			return "", err
		}
		defer from.Close()
		to := filepath.Join(dir, "postgres.txz")
		f, err := os.Create(to)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(f, from)
		return to, errors.Join(err, f.Close())
	}
	return "", fmt.Errorf("%s has no archive in it", jar)
}

func download(ctx context.Context, url, to string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, answer.Body)
	return errors.Join(err, f.Close())
}
