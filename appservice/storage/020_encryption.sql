-- Messages to devices that wait for a service, several in a row as one record of syncapi's log had them. Numbers count the
-- rows of a service in the order of commits. taken is how many of the row's messages are in transactions already. size is
-- that of body in bytes.
CREATE TABLE appservice_to_device (
    service TEXT NOT NULL, number BIGINT NOT NULL, taken BIGINT NOT NULL, size BIGINT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (service, number)
);
CREATE TABLE appservice_to_device_last (service TEXT PRIMARY KEY, number BIGINT NOT NULL);

-- Services for which it is followed who shares rooms with their users.
CREATE TABLE appservice_list_services (service TEXT PRIMARY KEY);
-- Users who share a room with users of a service, as the service knows or will know.
CREATE TABLE appservice_list_shared (service TEXT NOT NULL, user_id TEXT NOT NULL, PRIMARY KEY (user_id, service));
CREATE INDEX appservice_list_shared_service ON appservice_list_shared (service, user_id);
-- Users of whom it must be found out whether they share a room with users of a service, and rooms all of whose members are
-- such users. version is another with each reason to look: what was found out is right only if it is still the same.
CREATE TABLE appservice_list_users (
    service TEXT NOT NULL, user_id TEXT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (user_id, service)
);
CREATE INDEX appservice_list_users_service ON appservice_list_users (service);
-- root is that of the state which has the members; zero: they are those of now.
CREATE TABLE appservice_list_rooms (
    version BIGINT PRIMARY KEY, service TEXT NOT NULL, room_id TEXT NOT NULL, root BYTEA NOT NULL
);
CREATE INDEX appservice_list_rooms_service ON appservice_list_rooms (service);
-- What a service must hear: users whose keys have changed or (has_left) who share no room any more.
CREATE TABLE appservice_list_changes (
    service TEXT NOT NULL, user_id TEXT NOT NULL, has_left BOOLEAN NOT NULL, version BIGINT NOT NULL,
    PRIMARY KEY (service, user_id)
);

-- What can be claimed of the keys of devices of services' users: an object of counts by algorithm, and an array of the
-- algorithms of unused fallback keys. version is not 0 while the service has not heard of it.
CREATE TABLE appservice_key_counts (
    service TEXT NOT NULL, user_id TEXT NOT NULL, device_id TEXT NOT NULL, one_time TEXT NOT NULL, fallback TEXT NOT NULL,
    version BIGINT NOT NULL, PRIMARY KEY (service, user_id, device_id)
);
CREATE INDEX appservice_key_counts_user ON appservice_key_counts (user_id, device_id);
CREATE INDEX appservice_key_counts_untold ON appservice_key_counts (service) WHERE version <> 0;
