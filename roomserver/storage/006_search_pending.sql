-- What is indexed waits in a list of 4 MB until it is sorted in: with a thirtieth, searches look through less of it.
ALTER INDEX roomserver_search_words SET (gin_pending_list_limit = 128); -- only: postgres
