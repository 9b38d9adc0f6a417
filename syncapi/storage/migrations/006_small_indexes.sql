-- Two of the indexes of the timeline in a third of their room. Until the last process of the release before has ended, it counts what is
-- unread more slowly.
DROP INDEX syncapi_timeline_event; -- only: postgres
CREATE INDEX syncapi_timeline_event ON syncapi_timeline USING hash (event_id); -- only: postgres
DROP INDEX syncapi_timeline_sender; -- only: postgres
CREATE INDEX syncapi_timeline_sender ON syncapi_timeline (hashtextextended(room_id || sender, 0), pos) WHERE flags >= 1024; -- only: postgres
