-- Where the event stands in the room's order by which a member became what they are: heroes are the first of them.
ALTER TABLE roomserver_memberships ADD COLUMN place BIGINT NOT NULL DEFAULT 0;
UPDATE roomserver_memberships SET place = COALESCE((SELECT e.seg * 1099511627776 + e.idx FROM roomserver_events e
    WHERE e.event_id = roomserver_memberships.event_id), 0);
CREATE INDEX roomserver_memberships_present ON roomserver_memberships (room_nid, place) WHERE membership IN ('join', 'invite');
CREATE INDEX roomserver_memberships_gone ON roomserver_memberships (room_nid, place) WHERE membership IN ('leave', 'ban');
