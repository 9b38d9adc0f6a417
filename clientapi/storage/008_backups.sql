-- Server-side key backups. Versions of a user count up, and nid names the keys of one: it changes when they are all
-- deleted.
CREATE TABLE clientapi_backups (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    nid BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL, -- a JSON object
    etag BIGINT NOT NULL DEFAULT 0, -- how often the keys have changed
    sessions BIGINT NOT NULL DEFAULT 0, -- how many keys there are
    bytes BIGINT NOT NULL DEFAULT 0, -- of their session data
    PRIMARY KEY (user_id, version)
);
-- The highest version that each user ever had: none comes again.
CREATE TABLE clientapi_backup_versions (
    user_id TEXT PRIMARY KEY,
    last BIGINT NOT NULL
);
-- Keys that no backup has any more, and that are still to be deleted.
CREATE TABLE clientapi_backup_sweeps (
    nid BIGINT PRIMARY KEY
);
-- The keys of a backup, in blocks: some sessions of a room together, as they are answered.
CREATE TABLE clientapi_backup_blocks (
    nid BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    block BIGINT NOT NULL, -- counts up within the room
    ranks BYTEA NOT NULL, -- which sessions are in it, and how good their keys are
    sessions BYTEA NOT NULL, -- the members of a JSON object: session ids and their keys
    PRIMARY KEY (nid, room_id, block)
);
ALTER TABLE clientapi_backup_blocks ALTER COLUMN sessions SET STORAGE EXTERNAL; -- only: postgres
-- What the owner of a dehydrated device (MSC3814) needs to rehydrate it: a JSON object. A user has one such device at
-- most.
ALTER TABLE clientapi_devices ADD COLUMN device_data TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX clientapi_devices_dehydrated ON clientapi_devices (user_id) WHERE dehydrated = TRUE;
