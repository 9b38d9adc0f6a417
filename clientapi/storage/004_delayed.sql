-- Events that are to be sent later (MSC4140). One that is claimed is being sent, and cannot be changed any more.
CREATE TABLE clientapi_delayed (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT,
    content TEXT NOT NULL,
    replaces TEXT NOT NULL,
    delay_ms BIGINT NOT NULL,
    since_ms BIGINT NOT NULL,
    due_ms BIGINT NOT NULL,
    claimed BOOLEAN NOT NULL
);
CREATE INDEX clientapi_delayed_due ON clientapi_delayed (due_ms);
CREATE INDEX clientapi_delayed_user ON clientapi_delayed (user_id, since_ms);
