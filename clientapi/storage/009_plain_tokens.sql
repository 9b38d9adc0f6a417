-- Whether the rights of an administrator do not come with a token, whatever its account is.
ALTER TABLE clientapi_tokens ADD COLUMN plain BOOLEAN NOT NULL DEFAULT FALSE;
