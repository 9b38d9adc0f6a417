-- Users whose events are shown as redacted to who joined a room after they were erased: the room's state and newest event at that time.
CREATE TABLE roomserver_erasures (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    root BYTEA NOT NULL,
    last_seg BIGINT NOT NULL,
    last_idx BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_id)
);
