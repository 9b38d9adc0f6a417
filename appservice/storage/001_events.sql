-- The application services that this server has or had. Times are in ms.
CREATE TABLE appservice_services (
    service TEXT NOT NULL PRIMARY KEY,
    -- when it was registered: it is sent what happened later
    registered_ms BIGINT NOT NULL,
    -- when it was found to be gone; 0 while it is registered with a url
    removed_ms BIGINT NOT NULL,
    -- the id of the last transaction that was made for it
    last_transaction BIGINT NOT NULL,
    up BOOLEAN NOT NULL,
    since_ms BIGINT NOT NULL,
    last_success_ms BIGINT NOT NULL,
    last_error TEXT NOT NULL
);

-- The number of the last event that was queued for a service. Who queues holds the row until the commit, so that
-- numbers are committed in their order.
CREATE TABLE appservice_numbers (
    service TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

-- The events that wait for services, those of the transaction under way included.
CREATE TABLE appservice_events (
    service TEXT NOT NULL,
    number BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- JSON of what the roomserver does not tell later: see storage.Invite; empty if there is nothing of that
    invite TEXT NOT NULL,
    queued_ms BIGINT NOT NULL,
    PRIMARY KEY (service, number)
);

-- The transaction of each service that is under way: it is sent until it is taken, always the same.
CREATE TABLE appservice_transactions (
    service TEXT NOT NULL PRIMARY KEY,
    id BIGINT NOT NULL,
    body TEXT NOT NULL,
    -- the last event that it settles, and how many events are in it
    last_number BIGINT NOT NULL,
    events BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_ms BIGINT NOT NULL
);

-- The rooms whose rows in appservice_interest are right, and the namespaces for which they are.
CREATE TABLE appservice_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    namespaces TEXT NOT NULL
);

-- How many of a service's users are joined to a room. There is no row where there is none.
CREATE TABLE appservice_interest (
    room_id TEXT NOT NULL,
    service TEXT NOT NULL,
    users BIGINT NOT NULL,
    PRIMARY KEY (room_id, service)
);
CREATE INDEX appservice_interest_service ON appservice_interest (service, room_id);
