package storage

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Profile is a row of clientapi_profiles.
type Profile struct {
	UserID      id.UserID
	DisplayName string
	AvatarURL   string
	Fields      []byte // a JSON object of all other fields; nil: not read
}

type profileStatements struct {
	upsertProfile, lockProfile, selectProfile, selectProfiles, searchProfiles, deleteProfile *sqlutil.Stmt
}

func prepareProfiles(db *sqlutil.DB) profileStatements {
	return profileStatements{
		upsertProfile: db.Stmt(`INSERT INTO clientapi_profiles (user_id, display_name, avatar_url, search, fields)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id) DO UPDATE SET display_name = excluded.display_name,
			avatar_url = excluded.avatar_url, search = excluded.search, fields = excluded.fields`),
		lockProfile: db.Stmt(`SELECT display_name, avatar_url, fields FROM clientapi_profiles WHERE user_id = $1 FOR UPDATE`),
		selectProfile: db.Stmt(`SELECT p.display_name, p.avatar_url, p.fields FROM clientapi_profiles p
			JOIN clientapi_accounts a ON a.user_id = p.user_id WHERE p.user_id = $1 AND a.deactivated = FALSE`),
		selectProfiles: db.Stmt(`SELECT user_id, display_name, avatar_url FROM clientapi_profiles WHERE user_id = ANY($1)`),
		searchProfiles: db.Stmt(`SELECT p.user_id, p.display_name, p.avatar_url FROM clientapi_profiles p
			JOIN clientapi_accounts a ON a.user_id = p.user_id
			WHERE a.deactivated = FALSE AND a.guest = FALSE
			AND (p.search LIKE $1 ESCAPE '\' OR lower(p.user_id) LIKE $1 ESCAPE '\')
			ORDER BY CASE WHEN p.search = $2 OR lower(p.user_id) = $2 THEN 0 WHEN p.search LIKE $3 ESCAPE '\'
			OR lower(p.user_id) LIKE $4 ESCAPE '\' THEN 1 ELSE 2 END, p.user_id LIMIT $5 OFFSET $6`),
		deleteProfile: db.Stmt(`DELETE FROM clientapi_profiles WHERE user_id = $1`),
	}
}

// PutProfile writes the whole profile of a user.
func (s *Store) PutProfile(ctx context.Context, tx *sqlutil.Tx, p Profile) error {
	fields := string(p.Fields)
	if fields == "" {
		fields = "{}"
	}
	_, err := s.upsertProfile.Exec(ctx, tx, p.UserID, p.DisplayName, p.AvatarURL, strings.ToLower(p.DisplayName), fields)
	return err
}

// LockProfile reads a profile for a transaction that changes it. One that is missing is empty.
func (s *Store) LockProfile(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (Profile, error) {
	p, err := scanProfile(s.lockProfile.QueryRow(ctx, tx, user), user)
	if err == nil && p == nil {
		p = &Profile{UserID: user, Fields: []byte("{}")}
	}
	if err != nil {
		return Profile{}, err
	}
	return *p, nil
}

// Profile reads the profile of an active user; nil if there is none.
func (s *Store) Profile(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*Profile, error) {
	return scanProfile(s.selectProfile.QueryRow(ctx, tx, user), user)
}

func scanProfile(row *sqlutil.Row, user id.UserID) (*Profile, error) {
	p := &Profile{UserID: user}
	var fields string
	err := row.Scan(&p.DisplayName, &p.AvatarURL, &fields)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	p.Fields = []byte(fields)
	return p, err
}

// Profiles reads the names and avatars of users.
func (s *Store) Profiles(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]Profile, error) {
	rows, err := s.selectProfiles.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, scanNames)
}

// SearchProfiles finds active users whose id or display name contains a term in lower case: first those that equal it, then those
// that begin with it.
func (s *Store) SearchProfiles(ctx context.Context, tx *sqlutil.Tx, term string, limit, offset int) ([]Profile, error) {
	escaped := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(term)
	localpart := "@" + strings.TrimPrefix(escaped, "@") + "%"
	rows, err := s.searchProfiles.Query(ctx, tx, "%"+escaped+"%", term, escaped+"%", localpart, limit, offset)
	return sqlutil.Collect(rows, err, scanNames)
}

func scanNames(rows *sql.Rows) (p Profile, err error) {
	err = rows.Scan(&p.UserID, &p.DisplayName, &p.AvatarURL)
	return p, err
}

// DeleteProfile removes a profile.
func (s *Store) DeleteProfile(ctx context.Context, tx *sqlutil.Tx, user id.UserID) error {
	_, err := s.deleteProfile.Exec(ctx, tx, user)
	return err
}
