package eventlog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Components lists those that have a log or consumers in a database.
func Components(ctx context.Context, db *sqlutil.DB) (names []string, err error) {
	catalogue := `SELECT name FROM sqlite_master WHERE type = 'table'`
	if db.Dialect() == sqlutil.Postgres {
		catalogue = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	}
	const suffix = "_log_topics"
	err = db.ReadOne(ctx, "tables", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := db.Stmt(catalogue).Query(ctx, tx)
		names, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, suffix) })
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], suffix)
	}
	return names, nil
}

// Operator is what the operator's tools do about logs: it works on the databases, whether the server runs or not.
type Operator struct {
	components []string
	dbs        map[string]*sqlutil.DB
	producers  map[string]producerTables
	consumers  map[string]consumerTables
}

// NewOperator makes one for the logs of some components. Each has its tables in one database.
func NewOperator(ctx context.Context, dbs map[string]*sqlutil.DB) (*Operator, error) {
	o := &Operator{slices.Sorted(maps.Keys(dbs)), dbs, make(map[string]producerTables), make(map[string]consumerTables)}
	for component, db := range dbs {
		if err := createTables(ctx, db, component); err != nil {
			return nil, err
		}
		o.producers[component], o.consumers[component] = newProducerTables(db, component), newConsumerTables(db, component)
	}
	return o, nil
}

// Following is a consumer that is registered with a producer.
type Following struct {
	Component string // whose consumer it is
	Consumer  string
	Topic     string
	// Lag is how many records it has not applied, of all partitions.
	Lag int64
	// Reported is when it last told the producer that it had moved on: one that is idle and up to date has nothing to tell.
	Reported time.Time
}

// Name is what the consumer is called on command lines.
func (f Following) Name() string { return f.Component + "." + f.Consumer }

// Consumers lists those that are registered.
func (o *Operator) Consumers(ctx context.Context) ([]Following, error) {
	type row struct {
		Following
		part, seq, reported, head int64
	}
	var all []row
	for _, component := range o.components {
		err := o.dbs[component].ReadOne(ctx, "consumers", func(ctx context.Context, tx *sqlutil.Tx) error {
			rows, err := o.producers[component].followers.Query(ctx, tx)
			more, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (r row, err error) {
				return r, rows.Scan(&r.Topic, &r.Component, &r.Consumer, &r.part, &r.seq, &r.reported, &r.head)
			})
			all = append(all, more...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("consumers of %s: %w", component, err)
		}
	}
	// What consumers have told is a minute old; their own tables know better. One whose tables are gone is what it said.
	offsets, err := o.offsets(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[Following]*Following)
	for _, r := range all {
		f := found[r.Following]
		if f == nil {
			f = &Following{Component: r.Component, Consumer: r.Consumer, Topic: r.Topic}
			found[r.Following] = f
		}
		if seq, has := offsets[place{r.Component, r.Consumer, r.part}]; has {
			r.seq = seq
		}
		f.Lag += max(0, r.head-r.seq)
		if at := time.UnixMilli(r.reported); at.After(f.Reported) {
			f.Reported = at
		}
	}
	list := make([]Following, 0, len(found))
	for _, f := range found {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Following) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Topic, b.Topic))
	})
	return list, nil
}

// place is a partition of a consumer.
type place struct {
	component, consumer string
	part                int64
}

// offsets reads how far all consumers are, in the databases that there are.
func (o *Operator) offsets(ctx context.Context) (map[place]int64, error) {
	all := make(map[place]int64)
	for _, component := range o.components {
		err := o.dbs[component].ReadOne(ctx, "offsets", func(ctx context.Context, tx *sqlutil.Tx) error {
			rows, err := o.consumers[component].allOffsets.Query(ctx, tx)
			_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
				at, seq := place{component: component}, int64(0)
				err := rows.Scan(&at.consumer, &at.part, &seq)
				all[at] = seq
				return struct{}{}, err
			})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("offsets of %s: %w", component, err)
		}
	}
	return all, nil
}

// Forget has producers no longer keep records for a consumer. One that still runs registers again within a minute; one that comes
// back later goes on where it was, if the log still has what it needs.
func (o *Operator) Forget(ctx context.Context, component, consumer string) error {
	for _, producer := range o.components {
		err := o.dbs[producer].Write(ctx, "forget consumer", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := o.producers[producer].forget.Exec(ctx, tx, component, consumer)
			return err
		})
		if err != nil {
			return fmt.Errorf("forget %s.%s in the log of %s: %w", component, consumer, producer, err)
		}
	}
	return nil
}

// DeadLetters are the parked records of a key.
type DeadLetters struct {
	Component string
	Consumer  string
	Partition int32
	Topic     string
	Key       string
	Count     int64
	Error     string    // why the first of them could not be applied
	Since     time.Time // when the first was appended
}

// Name is what the consumer is called on command lines.
func (d DeadLetters) Name() string { return d.Component + "." + d.Consumer }

// DeadLetters lists what is parked.
func (o *Operator) DeadLetters(ctx context.Context) (all []DeadLetters, err error) {
	for _, component := range o.components {
		err := o.dbs[component].ReadOne(ctx, "dead letters", func(ctx context.Context, tx *sqlutil.Tx) error {
			rows, err := o.consumers[component].dead.Query(ctx, tx)
			more, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (DeadLetters, error) {
				d, since := DeadLetters{Component: component}, int64(0)
				err := rows.Scan(&d.Consumer, &d.Partition, &d.Topic, &d.Key, &d.Count, &d.Error, &since)
				d.Since = time.UnixMilli(since)
				return d, err
			})
			all = append(all, more...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("dead letters of %s: %w", component, err)
		}
	}
	return all, nil
}

// Retry has the consumer try a key's records again, in order: within a second if it runs, else when it starts.
func (o *Operator) Retry(ctx context.Context, d DeadLetters) error {
	_, err := o.ask(ctx, d, false)
	return err
}

// Drop removes a key's parked records, and tells how many there were. What the consumer parks of the key before it hears of that, it
// applies when it does.
func (o *Operator) Drop(ctx context.Context, d DeadLetters) (int64, error) {
	return o.ask(ctx, d, true)
}

func (o *Operator) ask(ctx context.Context, d DeadLetters, drop bool) (dropped int64, err error) {
	tables, known := o.consumers[d.Component]
	if !known {
		return 0, fmt.Errorf("there is no log of %s", d.Component)
	}
	err = o.dbs[d.Component].Write(ctx, "dead letters", func(ctx context.Context, tx *sqlutil.Tx) error {
		if drop {
			if dropped, err = tables.drop.Exec(ctx, tx, d.Consumer, d.Partition, d.Key); err != nil {
				return err
			}
		}
		_, err = tables.askRetry.Exec(ctx, tx, [][]any{{d.Consumer, d.Partition, d.Key}})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("dead letters of %s for %s.%s: %w", d.Key, d.Component, d.Consumer, err)
	}
	return dropped, nil
}
