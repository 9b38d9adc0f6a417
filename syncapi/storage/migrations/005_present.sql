-- Who is not offline, for whoever starts next: who does not come back then is told to be offline.
CREATE TABLE syncapi_present (user_id TEXT PRIMARY KEY, state TEXT NOT NULL, active BIGINT NOT NULL);
