-- content is what the client set, as JSON; ts is when, in ms. What is up to pos has been pushed, or does not need to be.
CREATE TABLE syncapi_pushers (
    user_id TEXT NOT NULL, app_id TEXT NOT NULL, pushkey TEXT NOT NULL, device_id TEXT NOT NULL, ts BIGINT NOT NULL, pos BIGINT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (app_id, pushkey, user_id)
);
CREATE INDEX syncapi_pushers_user ON syncapi_pushers (user_id);
