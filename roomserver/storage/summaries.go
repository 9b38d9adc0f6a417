package storage

import (
	"context"
	"database/sql"
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

type summaries struct {
	putSummary *sqlutil.Insert
	summary    *sqlutil.Stmt
	heroes     *sqlutil.Stmt
	publish    *sqlutil.Insert
	unpublish  *sqlutil.Stmt
	published  *sqlutil.Stmt
	directory  *sqlutil.Stmt
	total      *sqlutil.Stmt
}

const summaryColumns = `r.room_id, r.version, r.root, r.last_seg, r.last_idx, r.joined, r.invited, r.visibility, s.name, s.topic, s.avatar_url, s.canonical_alias,
	s.join_rule, s.guest_access, s.room_type, s.encryption, s.creator`

func newSummaries(db *sqlutil.DB) summaries {
	const from = ` FROM roomserver_summaries s JOIN roomserver_rooms r ON r.nid = s.room_nid `
	// CROSS JOIN has SQLite begin with the few that are published.
	// The rooms are those of the server's own directory, of all networks, or of one that one service or any has.
	const listed = ` FROM (SELECT room_nid FROM roomserver_published WHERE $4
			UNION SELECT room_nid FROM roomserver_networks WHERE $5 OR network = $6 AND ($7 = '' OR service = $7)) p CROSS JOIN roomserver_summaries s CROSS JOIN roomserver_rooms r
		WHERE s.room_nid = p.room_nid AND r.nid = p.room_nid AND s.search LIKE $1 ESCAPE '!' AND ($2 OR s.room_type = ANY($3))`
	return summaries{
		putSummary: db.Insert("roomserver_summaries", []string{"room_nid", "name", "topic", "avatar_url", "canonical_alias", "join_rule", "guest_access",
			"room_type", "encryption", "creator", "search"},
			`ON CONFLICT (room_nid) DO UPDATE SET name = excluded.name, topic = excluded.topic, avatar_url = excluded.avatar_url,
			canonical_alias = excluded.canonical_alias, join_rule = excluded.join_rule, guest_access = excluded.guest_access,
			room_type = excluded.room_type, encryption = excluded.encryption, creator = excluded.creator, search = excluded.search`),
		summary: db.Stmt(`SELECT ` + summaryColumns + from + `WHERE r.room_id = ANY($1)`),
		heroes: db.Stmt(`SELECT ` + summaryColumns + `, CASE WHEN s.name <> '' OR s.canonical_alias <> '' THEN ''
			ELSE COALESCE(` + firstMembers(`'join', 'invite'`) + `, ` + firstMembers(`'leave', 'ban'`) + `, '') END` +
			from + `WHERE r.room_id = ANY($1)`),
		publish:   db.Insert("roomserver_published", []string{"room_nid"}, "ON CONFLICT (room_nid) DO NOTHING"),
		unpublish: db.Stmt(`DELETE FROM roomserver_published WHERE room_nid = $1`),
		published: db.Stmt(`SELECT COUNT(*) FROM roomserver_published WHERE room_nid = $1`),
		directory: db.Stmt(`SELECT ` + summaryColumns + listed + ` ORDER BY r.joined DESC, r.room_id LIMIT $8 OFFSET $9`),
		total:     db.Stmt(`SELECT COUNT(*)` + listed),
	}
}

// PutSummary replaces a room's row.
func (s *Storage) PutSummary(ctx context.Context, tx *sqlutil.Tx, roomNID int64, r *api.RoomSummary) error {
	search := strings.ToLower(r.Name + "\n" + r.Topic + "\n" + string(r.CanonicalAlias))
	_, err := s.putSummary.Exec(ctx, tx, [][]any{{roomNID, r.Name, r.Topic, r.AvatarURL, r.CanonicalAlias, r.JoinRule, r.GuestAccess, r.RoomType,
		r.Encryption, r.Creator, search}})
	return err
}

func collectSummaries(rows *sql.Rows, err error) ([]api.RoomSummary, error) {
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (api.RoomSummary, error) { return scanSummary(rows) })
}

// scanSummary reads summaryColumns, and more that follow on them.
func scanSummary(rows *sql.Rows, more ...any) (r api.RoomSummary, err error) {
	var root []byte
	var visibility Visibility
	columns := []any{&r.RoomID, &r.RoomVersion, &root, &r.Last.Segment, &r.Last.Index, &r.Joined, &r.Invited,
		&visibility, &r.Name, &r.Topic, &r.AvatarURL, &r.CanonicalAlias, &r.JoinRule, &r.GuestAccess,
		&r.RoomType, &r.Encryption, &r.Creator}
	err = rows.Scan(append(columns, more...)...)
	if err == nil {
		r.Root, err = rootOf(root)
	}
	r.HistoryVisibility = visibility.String()
	return r, err
}

// firstMembers is the text that reads the first members of a room with one of these memberships, but for the user $2:
// clients name a room without a name after them. Each list has an index, so that this does not look at all members.
func firstMembers(memberships string) string {
	return `(SELECT string_agg(h.user_id, ' ' ORDER BY h.place) FROM (
		SELECT m.user_id, m.place FROM roomserver_memberships m
		WHERE m.room_nid = s.room_nid AND m.membership IN (` + memberships + `) AND m.user_id <> $2
		ORDER BY m.place LIMIT ` + strconv.Itoa(api.MaxHeroes) + `) h)`
}

// Summaries reads those rooms that exist, in any order.
func (s *Storage) Summaries(ctx context.Context, roomIDs []id.RoomID) (all []api.RoomSummary, err error) {
	err = s.DB.ReadOne(ctx, "summaries", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = collectSummaries(s.summary.Query(ctx, tx, sqlutil.Array(roomIDs)))
		return err
	})
	return all, err
}

// SummariesWithHeroes is Summaries, with the heroes that a user sees.
func (s *Storage) SummariesWithHeroes(
	ctx context.Context, roomIDs []id.RoomID, user id.UserID,
) (all []api.RoomSummary, err error) {
	err = s.DB.ReadOne(ctx, "summaries with heroes", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.heroes.Query(ctx, tx, sqlutil.Array(roomIDs), user)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (api.RoomSummary, error) {
			var heroes string
			r, err := scanSummary(rows, &heroes)
			for _, hero := range strings.Fields(heroes) {
				r.Heroes = append(r.Heroes, id.UserID(hero))
			}
			return r, err
		})
		return err
	})
	return all, err
}

// Publish puts a room into the directory, or takes it out.
func (s *Storage) Publish(ctx context.Context, tx *sqlutil.Tx, roomNID int64, publish bool) error {
	if publish {
		_, err := s.summaries.publish.Exec(ctx, tx, [][]any{{roomNID}})
		return err
	}
	_, err := s.unpublish.Exec(ctx, tx, roomNID)
	return err
}

// Published tells whether a room is in the directory.
func (s *Storage) Published(ctx context.Context, roomNID int64) (bool, error) {
	var n int
	err := s.DB.ReadOne(ctx, "published", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.summaries.published.QueryRow(ctx, tx, roomNID).Scan(&n)
	})
	return n > 0, err
}

// Directory reads a page of the rooms of a directory that have a text in name, topic or alias, and counts them all.
func (s *Storage) Directory(ctx context.Context, q *api.QueryPublicRoomsRequest, limit, offset int) (page []api.RoomSummary, total int64, err error) {
	pattern := "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(strings.ToLower(q.Search)) + "%"
	var network api.Network
	if q.Network != nil {
		network = *q.Network
	}
	which := []any{pattern, q.RoomTypes == nil, sqlutil.Array(q.RoomTypes), q.Network == nil, q.AllNetworks, network.Network, network.Service}
	err = s.DB.Read(ctx, "directory", func(ctx context.Context, tx *sqlutil.Tx) error {
		if page, err = collectSummaries(s.directory.Query(ctx, tx, append(which, limit, offset)...)); err != nil {
			return err
		}
		return s.total.QueryRow(ctx, tx, which...).Scan(&total)
	})
	return page, total, err
}
