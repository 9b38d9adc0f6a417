-- Which events relate to which (Client-Server API, § Forming relationships between events): a row for each accepted child. What it
-- relates to may not be here, or be in another room.
CREATE TABLE roomserver_relations (
    nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    parent TEXT NOT NULL,
    rel_type TEXT NOT NULL,
    seg BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    sender TEXT NOT NULL,
    type TEXT NOT NULL,
    annotation BYTEA NOT NULL
);
CREATE INDEX roomserver_relations_parent ON roomserver_relations (parent, rel_type, seg, idx, sender);
CREATE INDEX roomserver_relations_threads ON roomserver_relations (room_nid, seg, idx) WHERE rel_type = 'm.thread';

-- When its sender's server says that an event was sent.
ALTER TABLE roomserver_events ADD COLUMN sent BIGINT NOT NULL DEFAULT 0;

-- What is there already. Postgres reads no JSON that has the character 0 somewhere.
UPDATE roomserver_events SET sent = substring(convert_from(json, 'UTF8') FROM '.*"origin_server_ts":(-?[0-9]+)')::bigint; -- only: postgres
UPDATE roomserver_events SET sent = CAST(json AS TEXT)->>'origin_server_ts'; -- only: sqlite
WITH e AS MATERIALIZED (
    SELECT nid, room_nid, seg, idx, convert_from(json, 'UTF8')::json AS j FROM roomserver_events -- only: postgres
    WHERE position('m.relates_to' IN convert_from(json, 'UTF8')) > 0 AND position('\u0000' IN convert_from(json, 'UTF8')) = 0 AND -- only: postgres
    SELECT nid, room_nid, seg, idx, CAST(json AS TEXT) AS j FROM roomserver_events WHERE -- only: sqlite
    seg IS NOT NULL AND outcome = 0)
INSERT INTO roomserver_relations
    SELECT nid, room_nid, j->'content'->'m.relates_to'->>'event_id', j->'content'->'m.relates_to'->>'rel_type', seg, idx, j->>'sender', j->>'type', ''
    FROM e
    WHERE json_typeof(j->'content'->'m.relates_to') = 'object' AND json_typeof(j->'content'->'m.relates_to'->'event_id') = 'string' -- only: postgres
        AND json_typeof(j->'content'->'m.relates_to'->'rel_type') = 'string' -- only: postgres
    WHERE json_type(j, '$.content."m.relates_to".event_id') = 'text' AND json_type(j, '$.content."m.relates_to".rel_type') = 'text' -- only: sqlite
;

CREATE INDEX roomserver_events_sent ON roomserver_events (room_nid, sent) WHERE seg IS NOT NULL;
