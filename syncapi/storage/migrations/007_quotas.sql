-- How much account data each user keeps, in bytes as package accountdata counts them. What the server itself sets is
-- not counted.
CREATE TABLE syncapi_account_data_usage (user_id TEXT PRIMARY KEY, bytes BIGINT NOT NULL) WITH (fillfactor = 70);
INSERT INTO syncapi_account_data_usage (user_id, bytes)
    SELECT user_id, SUM(OCTET_LENGTH(room_id) + OCTET_LENGTH(type) + OCTET_LENGTH(content) + 128)
    FROM syncapi_account_data WHERE type NOT IN ('m.fully_read', 'm.push_rules') GROUP BY user_id;

-- Receipts for events that do not exist were taken once, in any number of threads. One that holds a place in the room's
-- main timeline stays: without it what was read would be unread again.
DELETE FROM syncapi_receipts WHERE seg = 0 AND idx = 0 AND (place = 0 OR thread NOT IN ('', 'main'))
    AND NOT EXISTS (SELECT 1 FROM syncapi_timeline t
        WHERE t.event_id = syncapi_receipts.event_id AND t.room_id = syncapi_receipts.room_id);
