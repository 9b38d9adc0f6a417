-- What is ephemeral and waits for a service: at most one row for each thing that changes, named by kind and name. version is when
-- it has changed last, in µs. body is for appservice/ephemeral to know.
CREATE TABLE appservice_ephemeral (
    service TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (service, kind, name)
);
CREATE INDEX appservice_ephemeral_version ON appservice_ephemeral (service, version);
-- Rooms in which somebody types, as far as a service was told or will be.
CREATE TABLE appservice_typing (room_id TEXT NOT NULL, service TEXT NOT NULL, PRIMARY KEY (room_id, service));
