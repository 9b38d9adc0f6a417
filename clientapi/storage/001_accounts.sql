CREATE TABLE clientapi_accounts (
    user_id TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL, -- empty: no password leads in
    created_ms BIGINT NOT NULL,
    admin BOOLEAN NOT NULL DEFAULT FALSE,
    guest BOOLEAN NOT NULL DEFAULT FALSE,
    deactivated BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE TABLE clientapi_devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    last_seen_ms BIGINT NOT NULL,
    last_seen_ip TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
-- One row is an access token and the refresh token that came with it. parent is the row that was refreshed into this one,
-- until this one is used for the first time.
CREATE TABLE clientapi_tokens (
    access_hash BYTEA PRIMARY KEY,
    refresh_hash BYTEA UNIQUE,
    refresh_used BOOLEAN NOT NULL DEFAULT FALSE,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL, -- 0: never
    parent BYTEA
);
CREATE INDEX clientapi_tokens_device ON clientapi_tokens (user_id, device_id);
CREATE INDEX clientapi_tokens_parent ON clientapi_tokens (parent);
CREATE TABLE clientapi_profiles (
    user_id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL DEFAULT '',
    avatar_url TEXT NOT NULL DEFAULT '',
    search TEXT NOT NULL DEFAULT '', -- the display name in lower case
    fields TEXT NOT NULL DEFAULT '{}' -- a JSON object of all other fields
);
-- Sessions of user-interactive authentication.
CREATE TABLE clientapi_sessions (
    session_id TEXT PRIMARY KEY,
    operation TEXT NOT NULL,
    completed TEXT NOT NULL, -- a JSON list of stages
    user_id TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE INDEX clientapi_sessions_created ON clientapi_sessions (created_ms);
-- What was used and may not be used again: nonces and login tokens, as long as they would be valid.
CREATE TABLE clientapi_once (
    key TEXT PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX clientapi_once_expires ON clientapi_once (expires_ms);
CREATE TABLE clientapi_secrets (
    name TEXT PRIMARY KEY,
    secret BYTEA NOT NULL
);
-- What rooms must still hear of a user.
CREATE TABLE clientapi_pending (
    user_id TEXT NOT NULL,
    what TEXT NOT NULL,
    version BIGINT NOT NULL,
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (user_id, what)
);
CREATE INDEX clientapi_pending_since ON clientapi_pending (since_ms);
