// Package profiles has the profiles of local users (Client-Server API, § Profiles). A change is told to the user's rooms by
// package propagate, which finds it pending.
package profiles

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Keys that member events show.
const (
	KeyDisplayName = "displayname"
	KeyAvatarURL   = "avatar_url"
)

// MaxProfile is how large a whole profile may be, in bytes of JSON.
const MaxProfile = 64 << 10

const (
	maxKey       = 255 // bytes
	maxAvatarURL = 1024
	maxSearch    = 50
	// searchedAtOnce is of how many users who were found it is asked at once whether they may be seen.
	searchedAtOnce = 500
)

// PendingProfile names what is pending of a user whose rooms must hear of a new name or avatar.
const PendingProfile = "profile"

var validKey = regexp.MustCompile(`^(avatar_url|displayname|m\.tz|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+)$`)

// Service has the profiles.
type Service struct {
	store  *storage.Store
	users  *eventlog.Topic
	server id.ServerName
	now    func() time.Time
}

// New makes a Service.
func New(store *storage.Store, users *eventlog.Topic, server id.ServerName, now func() time.Time) *Service {
	return &Service{store, users, server, now}
}

// Get returns all fields of a user's profile. M_NOT_FOUND for users who are not known here.
func (s *Service) Get(ctx context.Context, user id.UserID) (map[string]json.RawMessage, error) {
	var p *storage.Profile
	err := s.store.DB.ReadOne(ctx, "profile", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		p, err = s.store.Profile(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("profile of %s: %w", user, err)
	}
	if p == nil {
		return nil, mxerr.NotFound("no profile of %s is known", user)
	}
	return fields(p)
}

// fields is a profile as clients see it.
func fields(p *storage.Profile) (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(p.Fields, &all); err != nil {
		return nil, fmt.Errorf("fields of the profile of %s: %w", p.UserID, err)
	}
	for key, value := range map[string]string{KeyDisplayName: p.DisplayName, KeyAvatarURL: p.AvatarURL} {
		if value == "" {
			continue
		}
		text, err := httputil.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", key, p.UserID, err)
		}
		all[key] = bytes.TrimSpace(text)
	}
	return all, nil
}

// CheckKey fails for what is no name of a field.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return mxerr.New(http.StatusBadRequest, "M_KEY_TOO_LARGE", "the name of a profile field may have %d bytes", maxKey)
	}
	if !validKey.MatchString(key) {
		return mxerr.InvalidParam("%q is not a profile field: it must be displayname, avatar_url, m.tz or a namespaced name such as org.example.field", key)
	}
	return nil
}

// Set sets one field; a nil value deletes it. If it is one that member events show, telling the rooms is pending when Set
// returns.
func (s *Service) Set(ctx context.Context, user id.UserID, key string, value json.RawMessage) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	text, err := s.checkValue(key, value)
	if err != nil {
		return err
	}
	err = s.store.DB.Write(ctx, "set profile", func(ctx context.Context, tx *sqlutil.Tx) error {
		p, err := s.store.LockProfile(ctx, tx, user)
		if err != nil {
			return fmt.Errorf("read it: %w", err)
		}
		shown := key == KeyDisplayName || key == KeyAvatarURL
		before := p
		switch key {
		case KeyDisplayName:
			p.DisplayName = text
		case KeyAvatarURL:
			p.AvatarURL = text
		default:
			if p.Fields, err = setField(p.Fields, key, value); err != nil {
				return err
			}
		}
		if err := checkSize(&p); err != nil {
			return err
		}
		if err := s.store.PutProfile(ctx, tx, p); err != nil {
			return fmt.Errorf("write it: %w", err)
		}
		if !shown || before.DisplayName == p.DisplayName && before.AvatarURL == p.AvatarURL {
			return nil
		}
		s.users.Append(ctx, tx, string(user), api.TypeProfile, &api.OutputProfile{UserID: user,
			Profile: api.Profile{DisplayName: p.DisplayName, AvatarURL: p.AvatarURL}})
		return s.store.PutPending(ctx, tx, user, PendingProfile, s.now())
	})
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", key, user, err)
	}
	return nil
}

// checkValue returns the text of the fields that are texts.
func (s *Service) checkValue(key string, value json.RawMessage) (string, error) {
	if key != KeyDisplayName && key != KeyAvatarURL && key != "m.tz" || value == nil {
		return "", nil
	}
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return "", mxerr.BadJSON("%s must be a string", key)
	}
	if text == nil {
		return "", nil // clients send null to remove a name
	}
	switch key {
	case KeyDisplayName:
		return *text, accounts.CheckDisplayName(*text)
	case KeyAvatarURL:
		u, err := url.Parse(*text)
		if *text != "" && (err != nil || u.Scheme != "mxc" || u.Host == "" || len(*text) > maxAvatarURL || strings.ContainsRune(*text, 0)) {
			return "", mxerr.InvalidParam("avatar_url must be an mxc:// URI of at most %d bytes", maxAvatarURL)
		}
	}
	return *text, nil
}

func setField(object []byte, key string, value json.RawMessage) ([]byte, error) {
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, fmt.Errorf("fields of a profile: %w", err)
	}
	if all[key] = value; value == nil {
		delete(all, key)
	}
	return httputil.Marshal(all)
}

func checkSize(p *storage.Profile) error {
	all, err := fields(p)
	if err != nil {
		return err
	}
	whole, err := httputil.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode a profile: %w", err)
	}
	if len(whole) > MaxProfile {
		return mxerr.New(http.StatusBadRequest, "M_PROFILE_TOO_LARGE", "a profile may have %d bytes, this one would have %d", MaxProfile, len(whole))
	}
	return nil
}

// Names returns names and avatars of local users. Those who have none are left out.
func (s *Service) Names(ctx context.Context, users ...id.UserID) (map[id.UserID]roomserver.Profile, error) {
	var local []id.UserID
	for _, user := range users {
		if user.Server() == s.server {
			local = append(local, user)
		}
	}
	names := make(map[id.UserID]roomserver.Profile, len(local))
	if len(local) == 0 {
		return names, nil
	}
	var found []storage.Profile
	err := s.store.DB.ReadOne(ctx, "profiles", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		found, err = s.store.Profiles(ctx, tx, local)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read profiles: %w", err)
	}
	for _, p := range found {
		names[p.UserID] = roomserver.Profile{DisplayName: p.DisplayName, AvatarURL: p.AvatarURL}
	}
	return names, nil
}

// Search finds local users whose id or display name contains a term, of those whom visible leaves. more tells that there are others.
func (s *Service) Search(ctx context.Context, term string, limit int, visible func(context.Context, []id.UserID) ([]id.UserID, error)) (
	found []storage.Profile, more bool, err error) {
	if term == "" || strings.ContainsRune(term, 0) {
		return nil, false, nil
	}
	limit = min(limit, maxSearch)
	for offset, batch := 0, 4*limit; ; offset, batch = offset+batch, 4*batch {
		var profiles []storage.Profile
		err = s.store.DB.ReadOne(ctx, "search users", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			profiles, err = s.store.SearchProfiles(ctx, tx, strings.ToLower(term), batch, offset)
			return err
		})
		if err != nil {
			return nil, false, fmt.Errorf("search users: %w", err)
		}
		for chunk := range slices.Chunk(profiles, searchedAtOnce) {
			users := make([]id.UserID, len(chunk))
			for i, p := range chunk {
				users[i] = p.UserID
			}
			seen, err := visible(ctx, users)
			if err != nil {
				return nil, false, fmt.Errorf("which users may be seen: %w", err)
			}
			for _, p := range chunk {
				if slices.Contains(seen, p.UserID) {
					found = append(found, p)
				}
			}
			if len(found) > limit {
				return found[:limit], true, nil
			}
		}
		if len(profiles) < batch {
			return found, false, nil
		}
	}
}
