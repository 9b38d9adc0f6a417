-- How far the log of each partition is indexed for search.
CREATE TABLE roomserver_search_progress (
    part BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);

-- The words of events, by number of the event. They are words already, so no tokenizer has more to do than to split them at spaces.
CREATE VIRTUAL TABLE roomserver_search USING fts5(body, name, topic, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0"); -- only: sqlite
CREATE TABLE roomserver_search (nid BIGINT NOT NULL PRIMARY KEY, key TEXT NOT NULL, words TSVECTOR NOT NULL); -- only: postgres
CREATE INDEX roomserver_search_words ON roomserver_search USING GIN (words); -- only: postgres
