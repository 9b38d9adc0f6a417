-- What users have reported to the administrators of this server. What a report is not about is empty.
CREATE TABLE clientapi_reports (
    nid BIGINT NOT NULL PRIMARY KEY,
    reported_ms BIGINT NOT NULL,
    reporter TEXT NOT NULL,
    room_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    reason TEXT NOT NULL
);
