-- Messages to devices that these have not acknowledged: one for each device at the position of the request that sent
-- it. The content is here, or (shared is not 0) in syncapi_to_device_shared, where several devices get the same. size
-- is that of the content in bytes.
CREATE TABLE syncapi_to_device (
    user_id TEXT NOT NULL, device_id TEXT NOT NULL, pos BIGINT NOT NULL, sender TEXT NOT NULL, type TEXT NOT NULL,
    size BIGINT NOT NULL, shared BIGINT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);
-- refs is how many messages have the content.
CREATE TABLE syncapi_to_device_shared (id BIGINT PRIMARY KEY, refs BIGINT NOT NULL, content TEXT NOT NULL);

-- Transactions of senders, by the hash of their request keys, and when they came, in ms.
CREATE TABLE syncapi_to_device_txns (hash BYTEA PRIMARY KEY, ts BIGINT NOT NULL);
CREATE INDEX syncapi_to_device_txns_ts ON syncapi_to_device_txns (ts);

-- Devices that were deleted, and at which position that became known here: a device of the same id that comes later
-- gets none of the messages up to it. An empty device_id stands for all devices of the user. emptied is 1 when these
-- messages are removed.
CREATE TABLE syncapi_gone_devices (
    user_id TEXT NOT NULL, device_id TEXT NOT NULL, pos BIGINT NOT NULL, emptied BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX syncapi_gone_devices_pos ON syncapi_gone_devices (pos);
CREATE INDEX syncapi_gone_devices_full ON syncapi_gone_devices (pos) WHERE emptied = 0;
