-- Rooms that application services have published, each in the directory of one of their networks.
CREATE TABLE roomserver_networks (
    room_nid BIGINT NOT NULL,
    service TEXT NOT NULL,
    network TEXT NOT NULL,
    PRIMARY KEY (room_nid, service, network)
);
CREATE INDEX roomserver_networks_network ON roomserver_networks (network);
