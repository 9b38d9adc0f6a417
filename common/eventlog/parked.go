package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// park puts a record aside, and with it every later one of its key.
func (c *Consumer) park(ctx context.Context, p int32, r *Record, why error) error {
	row := c.parkedRow(r, why.Error())
	part := &c.partitions[p]
	err := c.Commit(ctx, "park record", func(ctx context.Context, tx *sqlutil.Tx) error {
		moved, err := c.tables.move.Exec(ctx, tx, c.Name, p, part.written, r.Seq)
		if err != nil {
			return err
		}
		if moved == 0 {
			return errLostClaim
		}
		_, err = c.tables.park.Exec(ctx, tx, [][]any{row})
		return err
	})
	if err != nil {
		return errors.Join(why, fmt.Errorf("park %s: %w", r.Key, err))
	}
	c.Log.WithError(why).WithFields(logrus.Fields{"partition": p, "seq": r.Seq, "key": r.Key}).
		Error("a record cannot be applied: it and all later ones of its key are parked")
	c.mu.Lock()
	if !c.partitions[p].parked[r.Key] {
		c.partitions[p].parked[r.Key] = true
		c.parked.Inc()
	}
	c.mu.Unlock()
	part.written = r.Seq
	c.moved(p, r.Seq)
	return nil
}

func (c *Consumer) parkedRow(r *Record, why string) []any {
	value, err := r.value()
	if err != nil {
		value, why = []byte{}, why+"; "+err.Error()
	}
	return []any{c.Name, r.Partition, r.Seq, r.Topic, r.Key, r.Type, r.Time, []byte(value), why}
}

// retryParked tries the parked records of a partition again. A key that is through is followed again.
func (c *Consumer) retryParked(ctx context.Context, p int32) error {
	for _, key := range slices.Collect(maps.Keys(c.partitions[p].parked)) {
		if err := c.retryKey(ctx, p, key); err != nil {
			return err
		}
	}
	return nil
}

// parkedPage is how many parked records are read at once. It is small: where a key stays parked, only its first record
// is tried.
const parkedPage = 20

// retryKey tries the parked records of a key again, in order.
func (c *Consumer) retryKey(ctx context.Context, p int32, key string) error {
	for after := int64(0); ; {
		page, err := c.Parked(ctx, p, key, after)
		if err != nil {
			return err
		}
		for i := range page {
			if err := c.applyParked(ctx, p, &page[i]); err != nil {
				if !IsPermanent(err) && !isPanic(err) {
					return err
				}
				fields := logrus.Fields{"key": key, "seq": page[i].Seq}
				c.Log.WithError(err).WithFields(fields).Warn("a key stays parked")
				return nil
			}
			after = page[i].Seq
		}
		if len(page) < parkedPage {
			break
		}
	}
	c.mu.Lock()
	delete(c.partitions[p].parked, key)
	c.parked.Dec()
	c.mu.Unlock()
	c.Log.WithField("key", key).Info("a key is no longer parked")
	return nil
}

// lookForRetries finds the parked keys that the operator wants to have tried again (see Operator), and wakes their partitions for
// CatchUp to do it. Where nothing is parked, it asks for nothing.
func (c *Consumer) lookForRetries(ctx context.Context, wake func(p int32)) error {
	if !c.anyParked() {
		return nil
	}
	type asked struct {
		p   int32
		key string
	}
	var all []asked
	err := c.DB.ReadOne(ctx, "retries", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := c.tables.retries.Query(ctx, tx, c.Name)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (a asked, err error) { return a, rows.Scan(&a.p, &a.key) })
		return err
	})
	if err != nil {
		return fmt.Errorf("keys to retry of %s: %w", c.Name, err)
	}
	for _, a := range all {
		c.mu.Lock()
		part := &c.partitions[a.p%Partitions]
		ours := part.owned
		if ours && !slices.Contains(part.again, a.key) {
			part.again = append(part.again, a.key)
		}
		c.mu.Unlock()
		if ours {
			wake(a.p)
		}
	}
	return nil
}

func (c *Consumer) anyParked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.partitions {
		if len(c.partitions[p].parked) > 0 {
			return true
		}
	}
	return false
}

// retryAsked tries the keys again that lookForRetries has found. That a key is asked for is forgotten first: whoever asks once more
// meanwhile gets one more try.
func (c *Consumer) retryAsked(ctx context.Context, p int32) error {
	for {
		c.mu.Lock()
		part := &c.partitions[p]
		if len(part.again) == 0 {
			c.mu.Unlock()
			return nil
		}
		key, parked := part.again[0], part.parked[part.again[0]]
		c.mu.Unlock()
		err := c.DB.Write(ctx, "retry key", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := c.tables.retried.Exec(ctx, tx, c.Name, p, key)
			return err
		})
		if err == nil && parked {
			err = c.retryKey(ctx, p, key)
		}
		if err != nil {
			return fmt.Errorf("retry %s: %w", key, err)
		}
		c.mu.Lock()
		part.again = slices.DeleteFunc(part.again, func(k string) bool { return k == key })
		c.mu.Unlock()
	}
}

// applyParked applies one parked record. Its row is the witness: whoever deletes it has applied it.
func (c *Consumer) applyParked(ctx context.Context, p int32, r *Record) error {
	write, err := c.handle(ctx, []Record{*r})
	if err != nil {
		return err
	}
	return c.Commit(ctx, "apply parked", func(ctx context.Context, tx *sqlutil.Tx) error {
		deleted, err := c.tables.unpark.Exec(ctx, tx, c.Name, p, r.Seq)
		if err != nil || deleted == 0 || write == nil {
			return err
		}
		return write.run(ctx, tx)
	})
}

// Parked lists the first parked records of a key after a sequence, in order.
func (c *Consumer) Parked(ctx context.Context, p int32, key string, after int64) (records []Record, err error) {
	err = c.DB.ReadOne(ctx, "parked records", func(ctx context.Context, tx *sqlutil.Tx) error {
		records, err = c.tables.parkedRecords(ctx, tx, c.Name, p, key, after)
		return err
	})
	return records, err
}
