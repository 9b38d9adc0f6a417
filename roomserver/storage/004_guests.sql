-- Rooms that let guests in no more, and in which guests of this server may still be.
CREATE TABLE roomserver_guests_out (room_nid BIGINT NOT NULL PRIMARY KEY);
