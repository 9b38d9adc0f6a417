// Package uia is user-interactive authentication (Client-Server API, § User-Interactive Authentication API): a request is
// carried out when its client has completed the stages of one flow. Sessions are in the database, so that any replica goes on
// with what another began. A session is for one operation, and is used up by it.
package uia

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Lifetime is how long a session may take.
const Lifetime = time.Hour

const (
	// maxSession is longer than any session id we make.
	maxSession = 128
	// maxAbout is how many bytes say in words what a session is for.
	maxAbout = 512
	// MostOfUser and MostOfNetwork are how many sessions there are of one user, and of a network where no user is
	// known: the oldest go. Many people may be behind one address.
	MostOfUser    = 20
	MostOfNetwork = 1000
)

// Stage checks what the client says to complete a stage. It returns who that proves the client to be, if it does that. Its
// M_FORBIDDEN lets the client try again; every other error ends the request.
type Stage func(ctx context.Context, auth json.RawMessage) (id.UserID, error)

// Operation is a request that needs authentication.
type Operation struct {
	// Name tells operations apart: what a session was opened for cannot be spent on something else.
	Name string
	// About says in words what it does: "log 2 devices out".
	About string
	// Caller is whose request it is; empty: nobody's whom the server knows.
	Caller id.UserID
	// Network is where a request comes from that is nobody's.
	Network string
	Flows   [][]string
	Stages  map[string]Stage
	Params  map[string]any
}

// Service knows the sessions.
type Service struct {
	store *storage.Store
	now   func() time.Time
}

// New makes a Service.
func New(store *storage.Store, now func() time.Time) *Service { return &Service{store, now} }

type authData struct {
	Type    string `json:"type"`
	Session string `json:"session"`
}

// Authenticate returns once the client has completed a flow, with the user that the stages proved, if any. Until then it fails
// with the 401 that tells the client how to go on.
func (s *Service) Authenticate(ctx context.Context, op Operation, auth json.RawMessage) (id.UserID, error) {
	var data authData
	if len(auth) > 0 {
		if err := json.Unmarshal(auth, &data); err != nil {
			return "", mxerr.BadJSON("auth must be an object with a type and a session")
		}
	}
	session, err := s.find(ctx, op, data.Session)
	if err != nil {
		return "", err
	}
	if session == nil && (data.Session != "" || data.Type == "") {
		begun, err := s.begin(ctx, op)
		if err != nil {
			return "", err
		}
		if data.Session != "" {
			return "", op.again(begun, mxerr.Forbidden("the session is unknown, is over, or was for something else: use the new one"))
		}
		return "", op.again(begun, nil)
	}
	if session == nil {
		// A client that knows the only stage needs no session.
		session = s.session(op)
	}
	if data.Type == "" || slices.Contains(session.Completed, data.Type) {
		if !complete(session) {
			return "", op.again(session, nil)
		}
		return session.UserID, s.proceed(ctx, op, session) // completed on a page
	}
	stage := op.Stages[data.Type]
	if stage == nil || !isNext(session, data.Type) {
		return "", s.retry(ctx, op, session, mxerr.Forbidden("%q is not a stage that comes next", data.Type))
	}
	user, err := stage(ctx, auth)
	if e, is := mxerr.As(err); is && e.Status == http.StatusForbidden {
		return "", s.retry(ctx, op, session, e)
	}
	if err != nil {
		return "", err
	}
	session.Completed = append(session.Completed, data.Type)
	if user != "" {
		session.UserID = user
	}
	return session.UserID, s.proceed(ctx, op, session)
}

// proceed keeps what is completed, or, if it is enough, uses the session up.
func (s *Service) proceed(ctx context.Context, op Operation, session *storage.Session) error {
	complete := complete(session)
	if session.ID == "" && complete {
		return nil
	}
	if session.ID == "" {
		if err := s.insert(ctx, session); err != nil {
			return err
		}
		return op.again(session, nil)
	}
	mine := true
	err := s.store.DB.Write(ctx, "authentication stage", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if complete {
			mine, err = s.store.DeleteSession(ctx, tx, session.ID)
			return err
		}
		return s.store.UpdateSession(ctx, tx, *session)
	})
	switch {
	case err != nil:
		return fmt.Errorf("keep a stage of authentication: %w", err)
	case !mine:
		return mxerr.Forbidden("the session was used up by another request")
	case complete:
		return nil
	}
	return op.again(session, nil)
}

// find returns the session that the client names; nil if it is none for this operation.
func (s *Service) find(ctx context.Context, op Operation, sessionID string) (*storage.Session, error) {
	session, err := s.Session(ctx, sessionID)
	if err != nil || session == nil || session.Operation != op.Name {
		return nil, err
	}
	return session, nil
}

// Session returns a session that is not over; nil if there is none.
func (s *Service) Session(ctx context.Context, sessionID string) (*storage.Session, error) {
	if sessionID == "" || len(sessionID) > maxSession || strings.ContainsRune(sessionID, 0) {
		return nil, nil
	}
	var session *storage.Session
	err := s.store.DB.ReadOne(ctx, "authentication session", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		session, err = s.store.Session(ctx, tx, sessionID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find a session of authentication: %w", err)
	}
	if session == nil || session.CreatedMS < s.now().Add(-Lifetime).UnixMilli() {
		return nil, nil
	}
	return session, nil
}

func (s *Service) begin(ctx context.Context, op Operation) (*storage.Session, error) {
	session := s.session(op)
	return session, s.insert(ctx, session)
}

func (s *Service) session(op Operation) *storage.Session {
	origin := op.Network
	if op.Caller != "" {
		origin = string(op.Caller)
	}
	return &storage.Session{Operation: op.Name, About: strings.ToValidUTF8(op.About[:min(len(op.About), maxAbout)], ""),
		Caller: op.Caller, Origin: origin, Flows: op.Flows, CreatedMS: s.now().UnixMilli()}
}

// Complete notes that a page has completed the next stage of a session, and so proved who its user is, if user is not empty. The client
// goes on with the session alone (§ Fallback). It does nothing if the stage is completed.
func (s *Service) Complete(ctx context.Context, sessionID, stage string, user id.UserID) error {
	err := s.store.DB.Write(ctx, "authentication by a page", func(ctx context.Context, tx *sqlutil.Tx) error {
		session, err := s.store.Session(ctx, tx, sessionID)
		if err != nil || session != nil && slices.Contains(session.Completed, stage) {
			return err
		}
		if session == nil || !isNext(session, stage) {
			return mxerr.Forbidden("%q is not a stage that comes next", stage)
		}
		session.Completed = append(session.Completed, stage)
		if user != "" {
			session.UserID = user
		}
		return s.store.UpdateSession(ctx, tx, *session)
	})
	if err != nil {
		return fmt.Errorf("complete a stage of authentication: %w", err)
	}
	return nil
}

func (s *Service) insert(ctx context.Context, session *storage.Session) error {
	session.ID = tokens.Random()
	err := s.store.DB.Write(ctx, "begin authentication", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := s.store.InsertSession(ctx, tx, *session); err != nil {
			return err
		}
		most := MostOfNetwork
		if session.Caller != "" {
			most = MostOfUser
		}
		return s.store.DeleteSurplusSessions(ctx, tx, *session, most)
	})
	if err != nil {
		return fmt.Errorf("begin a session of authentication: %w", err)
	}
	return nil
}

// retry is the 401 after a stage that failed. A client that came without a session gets one.
func (s *Service) retry(ctx context.Context, op Operation, session *storage.Session, why *mxerr.Error) error {
	if session.ID == "" {
		if err := s.insert(ctx, session); err != nil {
			return err
		}
	}
	return op.again(session, why)
}

func complete(session *storage.Session) bool {
	return slices.ContainsFunc(session.Flows, func(flow []string) bool { return slices.Equal(flow, session.Completed) })
}

func isNext(session *storage.Session, stage string) bool {
	return slices.ContainsFunc(session.Flows, func(flow []string) bool {
		n := len(session.Completed)
		return len(flow) > n && slices.Equal(flow[:n], session.Completed) && flow[n] == stage
	})
}

// again is the 401 that names the flows, and what of them is completed; why is of a stage that failed.
func (op Operation) again(session *storage.Session, why *mxerr.Error) error {
	flows := make([]map[string][]string, len(op.Flows))
	for i, flow := range op.Flows {
		flows[i] = map[string][]string{"stages": flow}
	}
	params := op.Params
	if params == nil {
		params = map[string]any{}
	}
	e := &mxerr.Error{Status: http.StatusUnauthorized}
	if why != nil {
		e.Code, e.Message = why.Code, why.Message
	}
	e.Fields = map[string]any{"flows": flows, "params": params, "session": session.ID}
	if len(session.Completed) > 0 {
		e.Fields["completed"] = session.Completed
	}
	return e
}

// DropOld removes sessions that have been over for a while.
func (s *Service) DropOld(ctx context.Context) error {
	err := s.store.DB.Write(ctx, "drop old sessions", func(ctx context.Context, tx *sqlutil.Tx) error {
		now := s.now()
		if err := s.store.DeleteOldOnce(ctx, tx, now.UnixMilli()); err != nil {
			return err
		}
		return s.store.DeleteOldSessions(ctx, tx, now.Add(-Lifetime).UnixMilli())
	})
	if err != nil {
		return fmt.Errorf("drop old sessions of authentication: %w", err)
	}
	return nil
}
