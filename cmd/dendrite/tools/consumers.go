package tools

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/eventlog"
)

func consumersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "consumers",
		GroupID: Group,
		Short:   "See who follows the components' logs, and how far they are",
		Long: `Components follow each other's logs. A log keeps what a consumer has not applied yet, and a day beyond; the roomserver's, which is
the rooms themselves, keeps everything. A consumer that is never coming back must be forgotten, or the log that it followed grows.`,
	}
	c.AddCommand(listConsumersCommand(), forgetConsumerCommand())
	return c
}

func listConsumersCommand() *cobra.Command {
	return listCommand(&cobra.Command{
		Short: "List the consumers of all logs",
		Long: `Lists the consumers of all logs, whether the server runs or not: how many records each has not applied, and when it last told the
log's owner that it had moved on. One that has applied everything has nothing to tell; one that goes on tells each minute.`,
	}, "COMPONENT\tCONSUMER\tTOPIC\tLAG\tLAST REPORT", func(ctx context.Context, o *eventlog.Operator, w io.Writer) error {
		all, err := o.Consumers(ctx)
		for _, f := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", f.Component, f.Name(), f.Topic, f.Lag, f.Reported.Format(time.DateTime))
		}
		return err
	})
}

func forgetConsumerCommand() *cobra.Command {
	var p place.Place
	c := &cobra.Command{
		Use:   "forget COMPONENT.CONSUMER",
		Short: "Keep no more records for a consumer that is never coming back",
		Long: `Keeps no more records for a consumer, whose name is as in 'consumers list'. One that runs after all is listed again as soon as it
goes on. One that comes back later goes on where it was, unless what it needs next is gone by then: it says so in its log, and waits.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return operate(p, c, func(ctx context.Context, o *eventlog.Operator) error {
				all, err := o.Consumers(ctx)
				if err != nil {
					return err
				}
				for _, f := range all {
					if f.Name() != args[0] {
						continue
					}
					if err := o.Forget(ctx, f.Component, f.Consumer); err != nil {
						return err
					}
					_, err := fmt.Fprintf(c.OutOrStdout(), "Forgot %s.\n", f.Name())
					return err
				}
				return fmt.Errorf("there is no consumer %s: see '%s consumers list%s'", args[0], place.Invocation(), p.Arguments())
			})
		},
	}
	p.Flags(c)
	return c
}
