package sqlutil

import (
	"regexp"
	"strconv"
	"strings"
)

// Rewrite turns a text in the dialect of Postgres into that of a database:
//
//   - $1 … $n are parameters
//   - = ANY($1) takes an Array of strings or integers, = ANY($1::bytea[]) one of byte slices
//   - NOW_MS() is the database's clock in milliseconds
//   - FOR UPDATE only queues, and is left out for SQLite
//   - GREATEST and LEAST, casts (::type), BYTEA, BIGSERIAL PRIMARY KEY, TRUE and FALSE are known to both
//   - WITH (fillfactor = n) after a table is for Postgres only
func Rewrite(d Dialect, text string) string {
	if d == Postgres {
		return strings.ReplaceAll(text, "NOW_MS()", "(extract(epoch from clock_timestamp()) * 1000)::bigint")
	}
	for _, r := range toSQLite {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return anonymous(text)
}

var numbered = regexp.MustCompile(`\?(\d+)`)

// anonymous drops the numbers of parameters that stand in order: the driver looks up a name for each that has one.
func anonymous(text string) string {
	for i, m := range numbered.FindAllStringSubmatch(text, -1) {
		if m[1] != strconv.Itoa(i+1) {
			return text
		}
	}
	return numbered.ReplaceAllString(text, "?")
}

var toSQLite = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?i)=\s*ANY\s*\(\s*\$(\d+)::bytea\[\]\s*\)`), `IN (SELECT unhex(value) FROM json_each(?$1))`},
	{regexp.MustCompile(`(?i)=\s*ANY\s*\(\s*\$(\d+)(?:::[a-z]+\[\])?\s*\)`), `IN (SELECT value FROM json_each(?$1))`},
	{regexp.MustCompile(`\$(\d+)`), `?$1`},
	{regexp.MustCompile(`NOW_MS\(\)`), `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`},
	{regexp.MustCompile(`(?i)\s+FOR\s+UPDATE(\s+SKIP\s+LOCKED)?\b`), ``},
	{regexp.MustCompile(`::[a-z]+(\[\])?`), ``},
	{regexp.MustCompile(`\bGREATEST\(`), `max(`},
	{regexp.MustCompile(`\bLEAST\(`), `min(`},
	{regexp.MustCompile(`(?i)\bBYTEA\b`), `BLOB`},
	{regexp.MustCompile(`(?i)\bBIGSERIAL\s+PRIMARY\s+KEY\b`), `INTEGER PRIMARY KEY AUTOINCREMENT`},
	{regexp.MustCompile(`(?i)\s+WITH\s*\(\s*fillfactor\s*=\s*\d+\s*\)`), ``},
}
