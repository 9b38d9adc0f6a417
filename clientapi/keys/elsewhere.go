package keys

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Elsewhere has the keys of users of other servers. Its calls end with their context.
type Elsewhere interface {
	// QueryKeys returns the keys of devices of one server; an empty list stands for all devices of the user.
	QueryKeys(ctx context.Context, server id.ServerName, devices map[id.UserID][]id.DeviceID) (*Keys, error)
	// ClaimKeys claims a key of an algorithm for each device of one server.
	ClaimKeys(ctx context.Context, server id.ServerName, keys map[id.UserID]map[id.DeviceID]string) (Claimed, error)
}

// copyAsked copies of an answer what it says of users that were asked for: no server speaks for those of another.
func copyAsked[T, A any](into, answer map[id.UserID]A, asked map[id.UserID]T) {
	for user := range asked {
		if said, has := answer[user]; has {
			into[user] = said
		}
	}
}

// Unreachable says why servers did not answer.
type Unreachable map[id.ServerName]*mxerr.Error

// apart takes what is asked of users apart by their servers.
func apart[T any](all map[id.UserID]T) map[id.ServerName]map[id.UserID]T {
	by := make(map[id.ServerName]map[id.UserID]T)
	for user, asked := range all {
		server := user.Server()
		if by[server] == nil {
			by[server] = make(map[id.UserID]T)
		}
		by[server][user] = asked
	}
	return by
}

// askAll asks all servers at once, each until a time is over. take gets one answer after the other, with what was
// asked.
func askAll[T, A any](ctx context.Context, timeout time.Duration, asked map[id.ServerName]map[id.UserID]T,
	ask func(context.Context, id.ServerName, map[id.UserID]T) (A, error), take func(map[id.UserID]T, A)) Unreachable {
	failures := make(Unreachable)
	if ask == nil {
		for server := range asked {
			failures[server] = mxerr.Unavailable("this server does not reach %s", server)
		}
		return failures
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	for server, users := range asked {
		group.Go(func() {
			answer, err := ask(ctx, server, users)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				take(users, answer)
				return
			}
			if e, is := mxerr.As(err); is {
				failures[server] = e
			} else if errors.Is(err, context.DeadlineExceeded) {
				failures[server] = mxerr.Unavailable("%s did not answer in time", server)
			} else {
				failures[server] = mxerr.Unavailable("%s could not be asked", server)
			}
		})
	}
	group.Wait()
	return failures
}

// Timeout is how long to wait for other servers, of what a client asks for; nil: it does not say. M_INVALID_PARAM
// below 0.
func Timeout(ms *int64) (time.Duration, error) {
	switch {
	case ms == nil:
		return DefaultTimeout, nil
	case *ms < 0:
		return 0, mxerr.InvalidParam("timeout must be a number of milliseconds of at least 0")
	}
	return time.Duration(min(*ms, MaxTimeout.Milliseconds())) * time.Millisecond, nil
}

// Claimed has for devices an object of one "algorithm:id" and its key.
type Claimed = map[id.UserID]map[id.DeviceID]json.RawMessage
