-- What a page needs that completes a stage of authentication: whose session it is, if anybody's, what it is for, in words, and the
-- flows, as a JSON list of lists of stages.
ALTER TABLE clientapi_sessions ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE clientapi_sessions ADD COLUMN about TEXT NOT NULL DEFAULT '';
ALTER TABLE clientapi_sessions ADD COLUMN flows TEXT NOT NULL DEFAULT '[]';
