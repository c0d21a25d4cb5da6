-- The newest schema version that is installed.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT MAX(version) AS version FROM sentinel_schema_version
