-- Whose session it is, of which there may be so many: the user's who asks, or else the network's that the request came from.
ALTER TABLE clientapi_sessions ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE INDEX clientapi_sessions_origin ON clientapi_sessions (origin, created_ms);
CREATE INDEX clientapi_reports_reporter ON clientapi_reports (reporter, nid);
