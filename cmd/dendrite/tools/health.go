package tools

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/config"
)

func healthCommand() *cobra.Command {
	var p place.Place
	c := &cobra.Command{
		Use:     "health [COMPONENT]",
		GroupID: Group,
		Short:   "Ask a running process whether it can do its work",
		Long: `Asks the /health of a component's internal listener, or the monolith's if none is named, on this machine. It fails with the
reason if the process cannot do its work. A monolith without an internal listener is asked for the versions it speaks.`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: append(config.Components(), "monolith"),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := p.Load("")
			if err != nil {
				return err
			}
			process := "monolith"
			if len(args) == 1 {
				process = args[0]
			}
			url, err := healthURL(cfg, process)
			if err != nil {
				return err
			}
			answer, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
			if err != nil {
				return fmt.Errorf("%s does not answer: %w", process, err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
			if err != nil {
				return fmt.Errorf("%s: %w", process, err)
			}
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", process, strings.TrimSpace(string(body)))
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "ok")
			return err
		},
	}
	p.Flags(c)
	return c
}

// healthURL is where a process of this machine is asked.
func healthURL(cfg *config.Config, process string) (string, error) {
	addresses := cfg.Listen.For(process)
	address, path := addresses.Internal, "/health"
	if address == "" {
		address, path = addresses.Public, "/_matrix/client/versions"
	}
	host, err := reachable(address)
	if err != nil {
		return "", fmt.Errorf("%s listens on nothing: %w", process, err)
	}
	return "http://" + host + path, nil
}

// reachable is the host and port at which a listener of this machine is reached.
func reachable(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}
