package place

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/clientapi"
	"github.com/matrix-org/dendrite/common/backup"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
	"github.com/matrix-org/dendrite/roomserver"
	"github.com/matrix-org/dendrite/syncapi"
)

// OpenDatabase opens the database of a component, for the server and for tools, and makes it this server's if it is
// nobody's. It waits for one that cannot be reached: for so long, or without an end if that is 0.
func OpenDatabase(ctx context.Context, c *config.Config, name string, wait time.Duration,
	deps sqlutil.Deps) (*sqlutil.DB, error) {
	return openWith(ctx, c, name, sqlutil.Options{ConnectTimeout: wait}, deps, identity.Claim)
}

// LookAtDatabase opens the database of a component for who only looks, if it is not another server's.
func LookAtDatabase(ctx context.Context, c *config.Config, name string, wait time.Duration) (*sqlutil.DB, error) {
	return openWith(ctx, c, name, sqlutil.Options{ConnectTimeout: wait, Look: true}, sqlutil.Deps{}, identity.Check)
}

func openWith(ctx context.Context, c *config.Config, name string, o sqlutil.Options, deps sqlutil.Deps,
	check func(context.Context, *sqlutil.DB, id.ServerName, ...identity.ForeignUser) error) (*sqlutil.DB, error) {
	o.ConnectionString, o.MaxOpenConns = c.Database.For(name), c.Database.MaxOpenConnections
	key := "database.connection_string"
	if c.Database.ConnectionStrings[name] != "" {
		key = "database.connection_strings." + name
	}
	if err := StillThere(o.ConnectionString); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	db, err := sqlutil.Open(ctx, o, deps)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	var foreign []identity.ForeignUser
	for component, find := range foreignUsers() {
		if c.Database.For(component) == o.ConnectionString {
			foreign = append(foreign, find)
		}
	}
	if err := check(ctx, db, c.Matrix.ServerName, foreign...); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", key, err), db.Close())
	}
	return db, nil
}

// foreignUsers look, by component, for users in its tables who are not of the server with a name.
func foreignUsers() map[string]identity.ForeignUser {
	return map[string]identity.ForeignUser{
		"roomserver": roomserver.ForeignUser,
		"clientapi":  clientapi.ForeignUser,
		"syncapi":    syncapi.ForeignUser,
	}
}

// Databases are the databases of a configuration, each once.
func Databases(cfg *config.Config) (all []backup.Database) {
	at := make(map[string]int) // by connection string
	for _, name := range config.Components() {
		connection := cfg.Database.For(name)
		i, is := at[connection]
		if !is {
			i = len(all)
			at[connection] = i
			all = append(all, backup.Database{Connection: connection})
		}
		all[i].Components = append(all[i].Components, name)
	}
	return all
}
