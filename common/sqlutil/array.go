package sqlutil

import (
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/lib/pq"
)

type arrayArg interface{ bind(Dialect) any }

type array[T any] struct{ values []T }

// Array is a list as one argument, for = ANY($n). Elements are strings, integers or byte slices, or types made of these.
func Array[T any](values []T) any { return array[T]{values} }

func (a array[T]) bind(d Dialect) any {
	switch reflect.TypeFor[T]().Kind() {
	case reflect.String:
		return bindList(d, a.values, func(v reflect.Value) string { return v.String() }, func(s []string) any { return pq.StringArray(s) })
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		return bindList(d, a.values, func(v reflect.Value) int64 { return v.Int() }, func(n []int64) any { return pq.Int64Array(n) })
	case reflect.Slice:
		if d == Postgres {
			return bindList(d, a.values, func(v reflect.Value) []byte { return v.Bytes() }, func(b [][]byte) any { return pq.ByteaArray(b) })
		}
		return bindList(d, a.values, func(v reflect.Value) string { return hex.EncodeToString(v.Bytes()) }, nil)
	}
	return badArg{fmt.Errorf("an Array of %s cannot be an argument", reflect.TypeFor[T]())}
}

func bindList[T, E any](d Dialect, values []T, element func(reflect.Value) E, postgres func([]E) any) any {
	list := make([]E, len(values))
	for i := range values {
		list[i] = element(reflect.ValueOf(values[i]))
	}
	if d == Postgres {
		return postgres(list)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return badArg{err}
	}
	return string(text)
}

// badArg fails when the statement is run.
type badArg struct{ err error }

func (b badArg) Value() (driver.Value, error) { return nil, b.err }
