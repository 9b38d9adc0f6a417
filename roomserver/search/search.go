// Package search indexes messages, and the names and topics of rooms, for the full text search of the database (Client-Server API,
// § Server Side Search).
//
// The index follows the log of the rooms. Nothing is done while an event is sent: what is new is indexed now and then, and before a
// search.
package search

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	// atOnce is how many events of the log one transaction indexes. On SQLite, sends wait for it.
	atOnce = 200
	// Every is how often CatchUp is to be called, where nobody searches.
	Every = 20 * time.Second
	// maxWords is how many words of a text are indexed or searched for.
	maxWords = 2000
)

// Index is the index of all rooms. It is safe for concurrent use.
type Index struct {
	Storage *storage.Storage
	Topic   *eventlog.Topic

	mu sync.Mutex // one at a time is enough
}

// CatchUp indexes all that is committed when it begins.
func (x *Index) CatchUp(ctx context.Context) error {
	heads, err := x.Topic.Heads(ctx, eventlog.HeadsRequest{Topic: api.Topic})
	if err != nil {
		return fmt.Errorf("heads of the rooms' log: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	progress, err := x.Storage.SearchProgress(ctx)
	if err != nil {
		return err
	}
	for partition, head := range heads.Heads {
		for at := progress[int32(partition)]; at < head; {
			if at, err = x.step(ctx, int32(partition), at); err != nil {
				return fmt.Errorf("index partition %d: %w", partition, err)
			}
		}
	}
	return nil
}

// step indexes some events after a sequence, and returns how far the partition is indexed then.
func (x *Index) step(ctx context.Context, partition int32, at int64) (int64, error) {
	events, err := x.Storage.LoggedEvents(ctx, partition, at, atOnce)
	if err != nil {
		return at, err
	}
	if len(events) == 0 {
		return at, fmt.Errorf("there are no events after %d, although the log goes on", at)
	}
	var add []storage.Document
	var targets []id.EventID
	for _, e := range events {
		if e.Redacts {
			targets = append(targets, e.PDU.Redacts())
		}
		if d := document(e.Event); d != nil {
			add = append(add, *d)
		}
	}
	known, err := x.Storage.KnownEvents(ctx, targets)
	if err != nil {
		return at, err
	}
	var remove []stateres.EventNID
	for _, k := range known {
		remove = append(remove, k.NID)
	}
	last := events[len(events)-1].Seq
	done, err := x.Storage.Index(ctx, partition, at, last, add, remove)
	if err != nil || done {
		return last, err
	}
	progress, err := x.Storage.SearchProgress(ctx)
	return progress[partition], err
}

// document is what is indexed of an event; nil if that is nothing. An event that is redacted has nothing to index.
func document(e *storage.Event) *storage.Document {
	if e.Outcome != storage.Accepted || !e.InTimeline {
		return nil
	}
	key, text := "", ""
	_, isState := e.PDU.StateKey()
	switch {
	case e.PDU.Type() == "m.room.message" && !isState:
		key, text = "body", state.ContentString(e.PDU, "body")
	case e.PDU.Is("m.room.name", ""):
		key, text = "name", state.ContentString(e.PDU, "name")
	case e.PDU.Is("m.room.topic", ""):
		key, text = "topic", state.ContentString(e.PDU, "topic")
		for _, form := range gjson.GetBytes(e.PDU.Content(), `m\.topic.m\.text`).Array() {
			if kind := form.Get("mimetype"); (!kind.Exists() || kind.Str == "text/plain") && form.Get("body").Str != text {
				text += " " + form.Get("body").Str
			}
		}
	}
	if words := Words(text); len(words) > 0 {
		return &storage.Document{NID: e.NID, Key: key, Words: strings.Join(words, " ")}
	}
	return nil
}

// Words splits a text as it is indexed: into runs of letters and digits, in lower case. Scripts that put no spaces between words are
// split into characters.
func Words(text string) (words []string) {
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, string(word))
			word = word[:0]
		}
	}
	for _, r := range strings.ToLower(text) {
		switch {
		case len(words) >= maxWords:
			return words
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar):
			end()
			words = append(words, string(r))
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) && len(word) > 0:
			if word = append(word, r); len(word) == maxLetters {
				end()
			}
		default:
			end()
		}
	}
	end()
	return words
}

// maxLetters is how long a word is at most: what is longer is no word, and Postgres would leave it out.
const maxLetters = 100
