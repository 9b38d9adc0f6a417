-- When the keys of a user have changed last, for all who see the user, or (viewer not '') for one who sees more of them.
CREATE TABLE syncapi_device_lists (
    user_id TEXT NOT NULL, viewer TEXT NOT NULL, pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, viewer)
) WITH (fillfactor = 70);
CREATE INDEX syncapi_device_lists_pos ON syncapi_device_lists (viewer, pos);

-- What can be claimed of a device's keys: counts of one-time keys by algorithm, and algorithms of unused fallback keys.
CREATE TABLE syncapi_device_keys (
    user_id TEXT NOT NULL, device_id TEXT NOT NULL, pos BIGINT NOT NULL, one_time TEXT NOT NULL, fallback TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 50);

-- Whose membership of a room has changed since?
CREATE INDEX syncapi_memberships_pos ON syncapi_memberships (room_id, pos);
