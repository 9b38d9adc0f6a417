-- Which words events have, and how often each: what ranks are made of.
CREATE VIRTUAL TABLE roomserver_search_words USING fts5vocab(roomserver_search, instance); -- only: sqlite
