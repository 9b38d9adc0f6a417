-- What users have set themselves, in ms when. What they are at present is in memory.
CREATE TABLE syncapi_presence (user_id TEXT PRIMARY KEY, state TEXT NOT NULL, status_msg TEXT NOT NULL, ts BIGINT NOT NULL);
