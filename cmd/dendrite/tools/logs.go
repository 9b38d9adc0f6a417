package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// operate runs a tool on the logs of all components, in the databases of a configuration, whether the server runs or not.
func operate(p place.Place, c *cobra.Command, work func(context.Context, *eventlog.Operator) error) (err error) {
	cfg, err := p.Existing()
	if err != nil {
		return err
	}
	logs := make(map[string]*sqlutil.DB)
	for _, database := range place.Databases(cfg) {
		db, err := place.OpenDatabase(c.Context(), cfg, database.Components[0], toolWait, sqlutil.Deps{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		components, err := eventlog.Components(c.Context(), db)
		if err != nil {
			return err
		}
		for _, component := range components {
			// Another component's database may have tables that are left over from when it was everybody's.
			if logs[component] == nil || cfg.Database.For(component) == database.Connection {
				logs[component] = db
			}
		}
	}
	operator, err := eventlog.NewOperator(c.Context(), logs)
	if err != nil {
		return err
	}
	return work(c.Context(), operator)
}

// listCommand prints a table of what is in the logs.
func listCommand(c *cobra.Command, header string, lines func(context.Context, *eventlog.Operator, io.Writer) error) *cobra.Command {
	var p place.Place
	c.Use, c.Args = "list", cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		return operate(p, c, func(ctx context.Context, o *eventlog.Operator) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, header)
			if err := lines(ctx, o, w); err != nil {
				return err
			}
			return w.Flush()
		})
	}
	p.Flags(c)
	return c
}
