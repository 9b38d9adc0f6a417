-- Who of this server's users is in a room?
CREATE INDEX syncapi_memberships_room ON syncapi_memberships (room_id, user_id, pos);
