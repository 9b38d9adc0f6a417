package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	appservice "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Of are the tools that are commands of a component's own command.
func Of(component string) []*cobra.Command {
	if component == "appservice" {
		return []*cobra.Command{serviceStatusCommand(), retryServiceCommand(), skipServiceCommand()}
	}
	return nil
}

// askAppservice calls the component appservice of the server that runs in a place.
func askAppservice(p place.Place, c *cobra.Command, ask func(ctx context.Context,
	api *appservice.AppserviceAPI) error) error {
	cfg, err := p.Existing()
	if err != nil {
		return err
	}
	// One of them runs: the monolith, or the component as a process of its own.
	urls := cfg.Peers["appservice"]
	if monolith := cfg.Listen.For("monolith"); monolith.Internal != "" {
		url, err := internalURL(monolith)
		if err != nil {
			return err
		}
		urls = append([]string{url}, urls...)
	}
	client, err := rpc.NewClient(rpc.ClientOptions{Secret: cfg.InternalSecret,
		Peers: map[string][]string{"appservice": urls}})
	if err != nil {
		return err
	}
	var api appservice.AppserviceAPI
	if err := rpc.Dial(client, "appservice", &api); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), toolWait)
	defer cancel()
	if err := ask(ctx, &api); err != nil {
		return fmt.Errorf("the server of %s: %w", p.Where(), err)
	}
	return nil
}

func serviceStatusCommand() *cobra.Command {
	var p place.Place
	c := &cobra.Command{
		Use:   "status [SERVICE…]",
		Short: "Show what waits for application services, and since when",
		Long: `Asks the running server what waits for application services (bridges and bots). What happens in rooms is sent to them
in order: where one does not answer, or refuses a transaction, everything that comes after waits.`,
		RunE: func(c *cobra.Command, args []string) error {
			return askAppservice(p, c, func(ctx context.Context, api *appservice.AppserviceAPI) error {
				res, err := api.QueryStatus(ctx, appservice.QueryStatusRequest{Services: args})
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "SERVICE\tSTATE\tSINCE\tBACKLOG\tOLDEST\t"+
					"TRANSACTION\tATTEMPTS\tNEXT\tLAST SUCCESS\tLAST ERROR")
				for i := range res.Services {
					s := &res.Services[i]
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Service, stateOf(s),
						moment(s.Since), s.Backlog, moment(s.Oldest),
						cmp.Or(s.TransactionID, "-"), s.Attempts, moment(s.NextAttempt), moment(s.LastSuccess),
						cmp.Or(s.LastError, "-"))
				}
				return w.Flush()
			})
		},
	}
	p.Flags(c)
	return c
}

func stateOf(s *appservice.Status) string {
	switch {
	case s.URL == "":
		return "no url"
	case s.Up:
		return "up"
	}
	return "down"
}

func moment(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).Format(time.DateTime)
}

func retryServiceCommand() *cobra.Command {
	var p place.Place
	c := &cobra.Command{
		Use:   "retry SERVICE",
		Short: "Send at once what waits for a service",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return askAppservice(p, c, func(ctx context.Context, api *appservice.AppserviceAPI) error {
				if _, err := api.Retry(ctx, appservice.RetryRequest{Service: args[0]}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "What waits for %s is sent now.\n", args[0])
				return err
			})
		},
	}
	p.Flags(c)
	return c
}

func skipServiceCommand() *cobra.Command {
	var p place.Place
	var all, yes bool
	c := &cobra.Command{
		Use:   "skip SERVICE",
		Short: "Drop the transaction that a service does not take",
		Long: `Drops the transaction that a service does not take, or everything that waits for it. The service never
gets these events.
Without --yes it only says what it would drop.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return askAppservice(p, c, func(ctx context.Context, api *appservice.AppserviceAPI) error {
				if !yes {
					res, err := api.QueryStatus(ctx, appservice.QueryStatusRequest{Services: args})
					if err != nil {
						return err
					}
					if len(res.Services) == 0 {
						return errors.New("it told nothing")
					}
					what := "the transaction " + cmp.Or(res.Services[0].TransactionID,
						"under way, of which there is none,")
					if all {
						what = fmt.Sprintf("%d events", res.Services[0].Backlog)
					}
					_, err = fmt.Fprintf(c.OutOrStdout(), "Would drop %s for %s: give --yes to do it.\n", what, args[0])
					return err
				}
				res, err := api.Skip(ctx, appservice.SkipRequest{Service: args[0], All: all})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "Dropped %d events for %s.\n", res.Events, args[0])
				return err
			})
		},
	}
	p.Flags(c)
	c.Flags().BoolVar(&all, "all", false, "drop everything that waits")
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// internalURL is the base of an internal listener of this machine.
func internalURL(addresses config.Addresses) (string, error) {
	host, err := reachable(addresses.Internal)
	return "http://" + host, err
}
