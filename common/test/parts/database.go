package parts

import (
	"fmt"
	"net/url"
)

// withDatabase is a connection string for another database of the same cluster.
func withDatabase(adminURL, name string) (string, error) {
	u, err := url.Parse(adminURL)
	if err != nil {
		return "", fmt.Errorf("the connection string of Postgres: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
