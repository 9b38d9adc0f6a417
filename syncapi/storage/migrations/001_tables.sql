-- The last position that was given out, and the one before it.
CREATE TABLE syncapi_position (id BIGINT PRIMARY KEY, prev BIGINT NOT NULL, pos BIGINT NOT NULL) WITH (fillfactor = 50);
INSERT INTO syncapi_position (id, prev, pos) VALUES (1, 0, 0);

-- What a room is after its last event. Counts: n = notify, h = highlight; of the room, and (m…) of what is in no thread.
CREATE TABLE syncapi_rooms (
    room_id TEXT PRIMARY KEY, version TEXT NOT NULL, pos BIGINT NOT NULL, seg BIGINT NOT NULL, idx BIGINT NOT NULL,
    root BYTEA NOT NULL, joined BIGINT NOT NULL, invited BIGINT NOT NULL,
    n BIGINT NOT NULL, h BIGINT NOT NULL, mn BIGINT NOT NULL, mh BIGINT NOT NULL
) WITH (fillfactor = 70);

-- Each event in the order in which it became known, with the counts after it; t… are those of its thread.
CREATE TABLE syncapi_timeline (
    room_id TEXT NOT NULL, pos BIGINT NOT NULL, event_id TEXT NOT NULL, seg BIGINT NOT NULL, idx BIGINT NOT NULL,
    type TEXT NOT NULL, sender TEXT NOT NULL, flags BIGINT NOT NULL, thread TEXT NOT NULL,
    root_before BYTEA NOT NULL, root_after BYTEA NOT NULL, joined BIGINT NOT NULL, invited BIGINT NOT NULL,
    n BIGINT NOT NULL, h BIGINT NOT NULL, mn BIGINT NOT NULL, mh BIGINT NOT NULL, tn BIGINT NOT NULL, th BIGINT NOT NULL,
    PRIMARY KEY (room_id, pos)
);
CREATE INDEX syncapi_timeline_event ON syncapi_timeline (event_id);
-- Flag 1024 is storage.Local: where have the users of this server last said something?
CREATE INDEX syncapi_timeline_sender ON syncapi_timeline (room_id, sender, pos) WHERE flags >= 1024;
CREATE INDEX syncapi_timeline_thread ON syncapi_timeline (room_id, thread, pos) WHERE thread <> '';

-- Each change of membership of the users of this server.
CREATE TABLE syncapi_memberships (
    user_id TEXT NOT NULL, room_id TEXT NOT NULL, pos BIGINT NOT NULL, membership TEXT NOT NULL, event_id TEXT NOT NULL,
    sender TEXT NOT NULL, root BYTEA NOT NULL, stripped TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id, pos)
);

-- What counts for one user beyond what counts for all of a class, or (user_id '') for all in another way than it first did.
-- at is the position of the event that counts.
CREATE TABLE syncapi_mentions (
    user_id TEXT NOT NULL, room_id TEXT NOT NULL, at BIGINT NOT NULL, pos BIGINT NOT NULL, thread TEXT NOT NULL,
    n BIGINT NOT NULL, h BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id, at, pos)
);

-- The user's count that stood when their rules for a room began to count in another way, and (b…) the room's counts then. place is
-- up to where they had read.
CREATE TABLE syncapi_frozen (
    user_id TEXT NOT NULL, room_id TEXT NOT NULL, pos BIGINT NOT NULL, place BIGINT NOT NULL,
    n BIGINT NOT NULL, h BIGINT NOT NULL, bn BIGINT NOT NULL, bh BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id)
);

-- thread is '' for a receipt that has none. place is the position of the newest event that it covers; if its event is not
-- known yet, seg and idx are 0, and place is that of the receipt before it.
CREATE TABLE syncapi_receipts (
    room_id TEXT NOT NULL, user_id TEXT NOT NULL, type TEXT NOT NULL, thread TEXT NOT NULL, pos BIGINT NOT NULL,
    event_id TEXT NOT NULL, seg BIGINT NOT NULL, idx BIGINT NOT NULL, place BIGINT NOT NULL, ts BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id, type, thread)
);
CREATE INDEX syncapi_receipts_pos ON syncapi_receipts (room_id, pos);

-- room_id is '' for what is of no room. The content of m.push_rules is a pushrules.Document.
CREATE TABLE syncapi_account_data (
    user_id TEXT NOT NULL, room_id TEXT NOT NULL, type TEXT NOT NULL, pos BIGINT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX syncapi_account_data_rules ON syncapi_account_data (user_id) WHERE type = 'm.push_rules';
CREATE INDEX syncapi_account_data_ignored ON syncapi_account_data (user_id) WHERE type = 'm.ignored_user_list';

CREATE TABLE syncapi_filters (id BIGSERIAL PRIMARY KEY, user_id TEXT NOT NULL, hash BYTEA NOT NULL, content TEXT NOT NULL, UNIQUE (user_id, hash));
