package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// park puts a record aside, and with it every later one of its key.
func (c *Consumer) park(ctx context.Context, p int32, r *Record, why error) error {
	row := c.parkedRow(r, why.Error())
	err := c.Commit(ctx, "park record", func(ctx context.Context, tx *sqlutil.Tx) error {
		moved, err := c.tables.move.Exec(ctx, tx, c.Name, p, r.Seq-1, r.Seq)
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
	if !c.partitions[p].parked[r.Key] {
		c.partitions[p].parked[r.Key] = true
		c.parked.Inc()
	}
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

// retryParked tries the parked records of a partition again, each key in order. A key that is through is followed again.
func (c *Consumer) retryParked(ctx context.Context, p int32) error {
	parked := c.partitions[p].parked
	for key := range parked {
		records, err := c.Parked(ctx, p, key)
		if err != nil {
			return err
		}
		through := true
		for i := range records {
			if err := c.applyParked(ctx, p, &records[i]); err != nil {
				if !IsPermanent(err) && !isPanic(err) {
					return err
				}
				c.Log.WithError(err).WithFields(logrus.Fields{"key": key, "seq": records[i].Seq}).Warn("a key stays parked")
				through = false
				break
			}
		}
		if through {
			delete(parked, key)
			c.parked.Dec()
			c.Log.WithField("key", key).Info("a parked key has been applied")
		}
	}
	return nil
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

// Parked lists the parked records of a key, in order.
func (c *Consumer) Parked(ctx context.Context, p int32, key string) (records []Record, err error) {
	err = c.DB.ReadOne(ctx, "parked records", func(ctx context.Context, tx *sqlutil.Tx) error {
		records, err = c.tables.parkedRecords(ctx, tx, c.Name, p, key)
		return err
	})
	return records, err
}
