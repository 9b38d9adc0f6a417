package tools

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/matrix-org/dendrite/clientapi"
	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// toolWait is how long a tool waits for a database.
const toolWait = 10 * time.Second

func createAccountCommand() *cobra.Command {
	var p place.Place
	var username string
	var fromStdin, admin bool
	c := &cobra.Command{
		Use:     "create-account --username NAME",
		GroupID: Group,
		Short:   "Make an account",
		Long: `Makes an account, whether the server runs or not. With --password-stdin the password is the first line of the standard input;
without it, a password is made and printed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.Load("")
			if err != nil {
				return err
			}
			password := rand.Text()
			if fromStdin {
				if password, err = readPassword(c.InOrStdin()); err != nil {
					return err
				}
			}
			services, err := registration.Read(cfg.ApplicationServices, cfg.Matrix.ServerName)
			if err != nil {
				return err
			}
			if user := id.NewUserID(strings.ToLower(username), cfg.Matrix.ServerName); services.ReservedUser(user, nil) {
				_, _ = fmt.Fprintf(c.ErrOrStderr(), "Warning: %s is a user of an application service (%s), which may act as this account.\n",
					user, services.ExclusiveUsers(user)[0].File)
			}
			db, err := place.OpenDatabase(c.Context(), cfg, "clientapi", toolWait, sqlutil.Deps{})
			if err != nil {
				return err
			}
			err = clientapi.CreateAccount(c.Context(), db, cfg, username, password, admin)
			if err = errors.Join(err, db.Close()); err != nil {
				return fmt.Errorf("making the account %s: %w", username, err)
			}
			out := c.OutOrStdout()
			_, err = fmt.Fprintf(out, "Made @%s:%s.\n", username, cfg.Matrix.ServerName)
			if !fromStdin && err == nil {
				_, err = fmt.Fprintf(out, "Password: %s\n", password)
			}
			return err
		},
	}
	p.Flags(c)
	c.Flags().StringVar(&username, "username", "", "name, such as alice")
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from the standard input")
	c.Flags().BoolVar(&admin, "admin", false, "make it an administrator's account")
	if err := c.MarkFlagRequired("username"); err != nil {
		panic(err) // the flag is declared above
	}
	return c
}

// readPassword reads the first line.
func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("--password-stdin: the standard input has no password: write it there, in one line")
	}
	return line, nil
}
