-- The keys of a backup are kept in blocks: some sessions of a room together, as they are answered. What was kept one by
-- one was in no release, and goes: its owners' clients make new backups.
CREATE TABLE clientapi_backup_blocks (
    nid BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    block BIGINT NOT NULL, -- counts up within the room
    ranks BYTEA NOT NULL, -- which sessions are in it, and how good their keys are
    sessions BYTEA NOT NULL, -- the members of a JSON object: session ids and their keys
    PRIMARY KEY (nid, room_id, block)
);
ALTER TABLE clientapi_backup_blocks ALTER COLUMN sessions SET STORAGE EXTERNAL; -- only: postgres
DROP TABLE clientapi_backup_keys;
DELETE FROM clientapi_backups;
DELETE FROM clientapi_backup_sweeps;
