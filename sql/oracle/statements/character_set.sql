-- The character set of the database.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'
