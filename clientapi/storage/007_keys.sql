-- A dehydrated device (MSC3814) is one that nobody uses yet: it does not count among those that a user may have.
ALTER TABLE clientapi_devices ADD COLUMN dehydrated BOOLEAN NOT NULL DEFAULT FALSE;
-- Identity keys of devices. json is what the device has signed: canonical, without signatures and unsigned.
CREATE TABLE clientapi_device_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    public_key TEXT NOT NULL, -- the ed25519 key
    signature TEXT NOT NULL, -- with that key
    json TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
-- Cross-signing keys. json is as that of devices; the master key has signed all others.
CREATE TABLE clientapi_cross_signing (
    user_id TEXT NOT NULL,
    usage TEXT NOT NULL,
    public_key TEXT NOT NULL,
    signature TEXT NOT NULL, -- with the master key; empty for the master key itself
    json TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
);
-- Signatures that were added later to a key of user_id: a device, or a cross-signing key by its public key.
CREATE TABLE clientapi_signatures (
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    signer TEXT NOT NULL,
    signer_key TEXT NOT NULL, -- device or public key
    signature TEXT NOT NULL,
    only_signer BOOLEAN NOT NULL, -- nobody else sees it
    PRIMARY KEY (user_id, key_id, signer, signer_key)
);
CREATE INDEX clientapi_signatures_signer ON clientapi_signatures (signer, signer_key);
-- The one-time keys of a device that are of one algorithm, and its fallback key. Keys are numbered from 1 as they are
-- uploaded. Those up to given have been given.
CREATE TABLE clientapi_key_pools (
    nid BIGSERIAL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    given BIGINT NOT NULL DEFAULT 0,
    uploaded BIGINT NOT NULL DEFAULT 0,
    fallback_id TEXT NOT NULL DEFAULT '', -- empty: there is none
    fallback_json TEXT NOT NULL DEFAULT '',
    fallback_used BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE (user_id, device_id, algorithm)
);
-- For those who ask for devices of many users: one name for each.
CREATE INDEX clientapi_key_pools_device ON clientapi_key_pools ((user_id || ' ' || device_id));
-- One-time keys as they were uploaded together, those that can be claimed, and some that were given, so that none is taken
-- twice. A slot is "algorithm:id":key, filled up with spaces: each has the same width, so that one is read without the others.
CREATE TABLE clientapi_one_time_keys (
    pool BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    width BIGINT NOT NULL, -- bytes
    slots BYTEA NOT NULL,
    PRIMARY KEY (pool, last_seq)
);
-- What claims were answered, for those who ask again.
CREATE TABLE clientapi_claims (
    request_key TEXT PRIMARY KEY,
    claimed_ms BIGINT NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX clientapi_claims_claimed ON clientapi_claims (claimed_ms);
-- How often others were told to fetch a user's keys anew.
CREATE TABLE clientapi_device_lists (
    user_id TEXT PRIMARY KEY,
    stream_id BIGINT NOT NULL
);
