package input

import (
	"context"
	"fmt"
	"slices"

	"github.com/opentracing/opentracing-go"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// worker has the inputs of a room that wait. It exists while there are any.
type worker struct{ waiting []*job }

// job is one input.
type job struct {
	ctx context.Context // the caller's, for its trace
	// run puts the input's events on the draft. What it returns is the caller's answer once the draft is committed; an
	// error undoes what it did to the draft.
	run func(ctx context.Context, d *draft) (any, error)
	// earlier finds the result of an earlier call with the same request key. Nil if there is no key.
	earlier func(ctx context.Context) (any, error)
	result  any
	err     error
	done    chan struct{}
}

// gone ends a job whose caller has gone without having it run, and tells whether it has.
func (j *job) gone() bool {
	err := j.ctx.Err()
	if err != nil {
		j.result, j.err = nil, err
	}
	return err != nil
}

// submit hands a job to the room's worker and waits for it. Where too many wait, it is refused with
// mxerr.ErrUnavailable: a room that many write to can fill its own share only.
func (in *Input) submit(ctx context.Context, roomID id.RoomID, j *job) (any, error) {
	j.ctx, j.done = ctx, make(chan struct{})
	in.mu.Lock()
	w, has := in.workers[roomID]
	if in.waiting >= maxWaiting || has && len(w.waiting) >= maxWaitingFor {
		in.mu.Unlock()
		return nil, fmt.Errorf("%w: too many changes of rooms wait already, that of %s is not taken",
			mxerr.ErrUnavailable, roomID)
	}
	if !has {
		w = new(worker)
		in.workers[roomID] = w
		in.running.Go(func() { in.work(roomID, w) })
	}
	w.waiting = append(w.waiting, j)
	in.waiting++
	in.mu.Unlock()
	select {
	case <-j.done:
		return j.result, j.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (in *Input) work(roomID id.RoomID, w *worker) {
	for {
		in.mu.Lock()
		n := min(len(w.waiting), batchLimit)
		batch := w.waiting[:n:n]
		w.waiting = w.waiting[n:]
		in.waiting -= n
		if n == 0 {
			delete(in.workers, roomID)
			in.mu.Unlock()
			return
		}
		in.mu.Unlock()
		// Whoever has gone reads nothing any more of its job.
		if batch = slices.DeleteFunc(batch, (*job).gone); len(batch) > 0 {
			in.runBatch(roomID, batch)
		}
	}
}

func (in *Input) runBatch(roomID id.RoomID, batch []*job) {
	ctx, cancel := context.WithTimeout(context.Background(), inputTimeout)
	defer cancel()
	if span := opentracing.SpanFromContext(batch[0].ctx); span != nil {
		ctx = opentracing.ContextWithSpan(ctx, span)
	}
	in.commitBatch(ctx, roomID, batch)
	for _, j := range batch {
		close(j.done)
	}
}
