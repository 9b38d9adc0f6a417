-- A room. Its row is what every change of the room replaces: row_version is random and new each time.
CREATE TABLE roomserver_rooms (
    nid BIGINT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    row_version BIGINT NOT NULL,
    root BYTEA NOT NULL,
    extremities TEXT NOT NULL,
    last_seg BIGINT NOT NULL,
    last_idx BIGINT NOT NULL,
    joined BIGINT NOT NULL,
    invited BIGINT NOT NULL,
    visibility BIGINT NOT NULL
) WITH (fillfactor = 50);

-- Events, and the log of the topic "room": those that are in the log have a partition and a sequence, those that are in the
-- timeline of their room have an order key.
CREATE TABLE roomserver_events (
    nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    part BIGINT,
    seq BIGINT,
    seg BIGINT,
    idx BIGINT,
    outcome BIGINT NOT NULL,
    flags BIGINT NOT NULL,
    root BYTEA NOT NULL,
    visibility BIGINT NOT NULL,
    joined BIGINT NOT NULL,
    invited BIGINT NOT NULL,
    auth BYTEA NOT NULL,
    redacted_by TEXT NOT NULL,
    request_key BYTEA,
    device_id TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    logged BIGINT NOT NULL,
    trace TEXT NOT NULL,
    json BYTEA NOT NULL
);
CREATE UNIQUE INDEX roomserver_events_log ON roomserver_events (part, seq);
CREATE UNIQUE INDEX roomserver_events_order ON roomserver_events (room_nid, seg, idx);
CREATE UNIQUE INDEX roomserver_events_request ON roomserver_events (request_key) WHERE request_key IS NOT NULL;

-- What an event did to the current state of its room, where it did something, or where the room had forked.
CREATE TABLE roomserver_deltas (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    root_before BYTEA NOT NULL,
    root_after BYTEA NOT NULL,
    changes TEXT NOT NULL
);

CREATE TABLE roomserver_state_keys (
    nid BIGINT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
);

CREATE TABLE roomserver_state_nodes (
    room_nid BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (room_nid, hash)
);

CREATE TABLE roomserver_memberships (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    event_id TEXT NOT NULL,
    forgotten BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_nid)
);
CREATE INDEX roomserver_memberships_room ON roomserver_memberships (room_nid, membership, user_id);

CREATE TABLE roomserver_summaries (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    topic TEXT NOT NULL,
    avatar_url TEXT NOT NULL,
    canonical_alias TEXT NOT NULL,
    join_rule TEXT NOT NULL,
    guest_access TEXT NOT NULL,
    room_type TEXT NOT NULL,
    encryption TEXT NOT NULL,
    creator TEXT NOT NULL,
    search TEXT NOT NULL
);

CREATE TABLE roomserver_published (room_nid BIGINT NOT NULL PRIMARY KEY);

CREATE TABLE roomserver_aliases (
    alias TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL,
    creator TEXT NOT NULL
);
CREATE INDEX roomserver_aliases_room ON roomserver_aliases (room_id);

-- PDUs that were received and cannot be checked yet, because events that they refer to are missing.
CREATE TABLE roomserver_staged (
    event_id TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL,
    version TEXT NOT NULL,
    origin TEXT NOT NULL,
    received BIGINT NOT NULL,
    missing TEXT NOT NULL,
    json BYTEA NOT NULL
);
CREATE INDEX roomserver_staged_room ON roomserver_staged (room_id, origin, received);

-- Redactions whose target has not come yet.
CREATE TABLE roomserver_pending_redactions (
    target TEXT NOT NULL,
    redaction TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    PRIMARY KEY (target, redaction)
);

-- First results of calls that make no event that could carry their request key.
CREATE TABLE roomserver_requests (
    request_key BYTEA NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL,
    done BIGINT NOT NULL
);
