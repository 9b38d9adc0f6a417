package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/eventlog"
)

func deadLettersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "dead-letters",
		GroupID: Group,
		Short:   "See and settle what a component could not apply",
		Long: `When a component can never apply a record of another's log, because of a defect, it puts aside that record and all later ones of
the same key (a room, a user), and goes on with the others. Each start tries them again, so that a release without the defect settles
them; 'retry' does it without a start.`,
	}
	c.AddCommand(listDeadLettersCommand(), retryDeadLettersCommand(), dropDeadLettersCommand())
	return c
}

func listDeadLettersCommand() *cobra.Command {
	return listCommand(&cobra.Command{Short: "List the keys whose records are put aside"}, "COMPONENT\tCONSUMER\tKEY\tRECORDS\tSINCE\tFIRST ERROR",
		func(ctx context.Context, o *eventlog.Operator, w io.Writer) error {
			all, err := o.DeadLetters(ctx)
			for _, d := range all {
				first, _, _ := strings.Cut(d.Error, "\n") // a panic has its stack below
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", d.Component, d.Name(), d.Key, d.Count, d.Since.Format(time.DateTime), first)
			}
			return err
		})
}

func retryDeadLettersCommand() *cobra.Command {
	var s settled
	c := &cobra.Command{
		Use:   "retry KEY… | --all",
		Short: "Try the records of a key again, in order",
		Long: `Has the component try the records of these keys again, in order: within a second or two if it runs, else when it starts. If one of
them still cannot be applied, it and those after it stay where they are; the component's log says why.`,
		RunE: func(c *cobra.Command, keys []string) error {
			return s.each(c, keys, func(ctx context.Context, o *eventlog.Operator, d eventlog.DeadLetters) error {
				if err := o.Retry(ctx, d); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "%s tries the %d records of %s again.\n", d.Name(), d.Count, d.Key)
				return err
			})
		},
	}
	s.flags(c)
	return c
}

func dropDeadLettersCommand() *cobra.Command {
	var s settled
	var yes bool
	c := &cobra.Command{
		Use:   "drop KEY… | --all",
		Short: "Delete the records of a key that were put aside",
		Long: `Deletes the records of these keys that were put aside, and follows the keys again. What the records would have done is never done:
what they tell of a room or user is missing in that component for good. Without --yes it only says what it would delete.`,
		RunE: func(c *cobra.Command, keys []string) error {
			return s.each(c, keys, func(ctx context.Context, o *eventlog.Operator, d eventlog.DeadLetters) error {
				if !yes {
					_, err := fmt.Fprintf(c.OutOrStdout(), "Would delete %d records of %s for %s: give --yes to do it.\n", d.Count, d.Key, d.Name())
					return err
				}
				n, err := o.Drop(ctx, d)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "Deleted %d records of %s for %s.\n", n, d.Key, d.Name())
				return err
			})
		},
	}
	s.flags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// settled says which dead letters a command is about.
type settled struct {
	place.Place
	consumer string
	all      bool
}

func (s *settled) flags(c *cobra.Command) {
	s.Place.Flags(c)
	c.Flags().StringVar(&s.consumer, "consumer", "", "only those of this consumer, such as syncapi.room")
	c.Flags().BoolVar(&s.all, "all", false, "those of every key")
}

// each settles the dead letters of some keys.
func (s *settled) each(c *cobra.Command, keys []string, settle func(context.Context, *eventlog.Operator, eventlog.DeadLetters) error) error {
	if s.all == (len(keys) > 0) {
		return errors.New("name the keys, or give --all")
	}
	return operate(s.Place, c, func(ctx context.Context, o *eventlog.Operator) error {
		all, err := o.DeadLetters(ctx)
		if err != nil {
			return err
		}
		missing := slices.Clone(keys)
		for _, d := range all {
			if s.consumer != "" && s.consumer != d.Name() || !s.all && !slices.Contains(keys, d.Key) {
				continue
			}
			missing = slices.DeleteFunc(missing, func(key string) bool { return key == d.Key })
			if err := settle(ctx, o, d); err != nil {
				return err
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("nothing of %s is put aside: see '%s dead-letters list%s'", strings.Join(missing, ", "), place.Invocation(), s.Arguments())
		}
		return nil
	})
}
