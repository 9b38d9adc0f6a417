// Package input changes rooms. It is the only writer of events, state and memberships.
//
// For each room a worker gathers the inputs that wait, builds or checks their events one after the other on a draft of the room,
// and commits them as one transaction whose first statement replaces the room's row only if it is still the one that the draft
// began from. Where it is not, because another replica was faster, the draft is thrown away and made again. The worker has a
// context of its own: a caller who goes away fails nobody else. An input that fails leaves no trace in the draft.
//
// Local events are built on the room's forward extremities and current state. PDUs of other servers go through the numbered checks
// of the Server-Server API, § Checks performed on receipt of a PDU (remote.go).
package input

import (
	"context"
	"sync"
	"time"

	counted "github.com/hashicorp/golang-lru/v2"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	batchLimit     = 50    // inputs that one transaction commits
	maxWaiting     = 5_000 // inputs that wait in the process,
	maxWaitingFor  = 1_000 // and those of one room
	maxBackoff     = 8     // attempts after which the time between them grows no more
	uniqueAttempts = 5     // of an input that finds what it would add there already
	createAttempts = 10    // of a room that is made at the same moment as others like it
	inputTimeout   = 30 * time.Second
	rememberedKeys = 5_000 // request keys of this process whose results are in memory
	maxStaged      = 500   // PDUs of one origin that wait in one room
	stagedAtOnce   = 100   // staged PDUs that one transaction takes in
)

// Keys verifies signatures of servers. An error that is an *InvalidSignature is a verdict, every other one may pass.
type Keys interface {
	VerifyPDU(ctx context.Context, e *pdu.Event) error
}

// InvalidSignature says that an event lacks a signature that it must have, or that one is wrong.
type InvalidSignature struct{ Server id.ServerName }

func (e *InvalidSignature) Error() string {
	return "the event has no valid signature of " + string(e.Server)
}

// Deps are what an Input works with.
type Deps struct {
	Storage *storage.Storage
	Reader  *state.Reader
	Topic   *eventlog.Topic
	Signer  pdu.Signer
	Keys    Keys // nil: PDUs of other servers are refused
	Log     *logrus.Entry
}

// Input changes rooms. It is safe for concurrent use.
type Input struct {
	Deps
	done *counted.Cache[string, id.EventID] // by request key

	known *lru.Cache[id.RoomID, *known]

	mu      sync.Mutex
	workers map[id.RoomID]*worker
	waiting int // inputs that wait in all workers
	running sync.WaitGroup
}

// New makes an Input.
func New(d Deps) (*Input, error) {
	in := &Input{Deps: d, workers: make(map[id.RoomID]*worker), known: newKnownCache()}
	var err error
	in.done, err = counted.New[string, id.EventID](rememberedKeys)
	return in, err
}

// Wait returns when nothing is being worked on.
func (in *Input) Wait() { in.running.Wait() }
