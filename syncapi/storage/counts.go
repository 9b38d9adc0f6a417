package storage

// Counts are numbers of notifications.
type Counts struct{ Notify, Highlight int64 }

// Plus adds.
func (c Counts) Plus(d Counts) Counts { return Counts{c.Notify + d.Notify, c.Highlight + d.Highlight} }

// Minus subtracts.
func (c Counts) Minus(d Counts) Counts { return Counts{c.Notify - d.Notify, c.Highlight - d.Highlight} }

// countCols are two columns for numbers of notifications and of highlights.
func countCols[T any](notify, highlight string, field func(*T) *Counts) []column[T] {
	return []column[T]{
		col(notify, func(row *T) *int64 { return &field(row).Notify }),
		col(highlight, func(row *T) *int64 { return &field(row).Highlight }),
	}
}
