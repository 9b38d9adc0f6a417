package accountdata

import (
	"context"
	"encoding/json"
	"math"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Bounds of the tags of one room. Each change writes all of them anew.
const (
	MaxTags      = 100
	MaxTagName   = 255       // bytes, by the specification
	MaxTagBytes  = 1024      // of one tag without its name
	MaxTagsBytes = 64 * 1024 // of the content of m.tag
)

// PutTag sets a tag of a room. M_FORBIDDEN for a room that the user was never in, M_TOO_LARGE beyond the bounds or the
// quota.
func (s *Service) PutTag(
	ctx context.Context, user id.UserID, room id.RoomID, tag string, content json.RawMessage,
) error {
	return s.change(ctx, key{user, room, Tags}, func(old json.RawMessage) (json.RawMessage, error) {
		if len(old) > MaxTagsBytes {
			return nil, tooManyTags()
		}
		tags, err := changeTags(old, func(all map[string]json.RawMessage) bool {
			all[tag] = content
			return true
		})
		if err != nil {
			return nil, err
		}
		return tags, checkTags(old, tags)
	})
}

// DeleteTag removes a tag of a room, if it is there.
func (s *Service) DeleteTag(ctx context.Context, user id.UserID, room id.RoomID, tag string) error {
	return s.change(ctx, key{user, room, Tags}, func(old json.RawMessage) (json.RawMessage, error) {
		return changeTags(old, func(all map[string]json.RawMessage) bool {
			_, has := all[tag]
			delete(all, tag)
			return has
		})
	})
}

// AddTag is PutTag for the server itself, for which there is no quota. A tag that is there stays as it is.
func (s *Service) AddTag(ctx context.Context, user id.UserID, room id.RoomID, tag string) error {
	return s.write(ctx, "tag of a room", 1, func(ctx context.Context, tx *sqlutil.Tx, w *writing) error {
		return w.change(ctx, tx, key{user, room, Tags}, func(old json.RawMessage) (json.RawMessage, error) {
			return changeTags(old, func(all map[string]json.RawMessage) bool {
				_, has := all[tag]
				if !has {
					all[tag] = json.RawMessage(`{}`)
				}
				return !has
			})
		}, s.within(math.MaxInt64))
	})
}

// changeTags changes the tags in the content of m.tag, which may be nil. It returns nil where change says that there is
// nothing to do.
func changeTags(old json.RawMessage, change func(map[string]json.RawMessage) bool) (json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	if t := gjson.GetBytes(old, "tags"); t.IsObject() {
		if err := json.Unmarshal([]byte(t.Raw), &all); err != nil {
			return nil, err
		}
	}
	if !change(all) {
		return nil, nil
	}
	return httputil.Marshal(map[string]any{"tags": all})
}

// checkTags refuses content of m.tag that is beyond the bounds. What was kept before there were bounds may shrink.
func checkTags(old, content json.RawMessage) error {
	err := withinBounds(content)
	if err != nil && len(content) <= len(old) && withinBounds(old) != nil {
		return nil
	}
	return err
}

func withinBounds(content json.RawMessage) (err error) {
	if len(content) > MaxTagsBytes {
		return tooManyTags()
	}
	n := 0
	gjson.GetBytes(content, "tags").ForEach(func(name, tag gjson.Result) bool {
		n++
		switch {
		case n > MaxTags:
			err = tooManyTags()
		case len(name.Str) > MaxTagName:
			err = mxerr.InvalidParam("the name of a tag may have %d bytes", MaxTagName)
		case len(tag.Raw) > MaxTagBytes:
			err = mxerr.TooLarge("a tag may have %d bytes, %q has %d", MaxTagBytes, name.Str, len(tag.Raw))
		}
		return err == nil
	})
	return err
}

func tooManyTags() error {
	return mxerr.TooLarge("a room may have %d tags, of %d bytes together: remove some first", MaxTags, MaxTagsBytes)
}
