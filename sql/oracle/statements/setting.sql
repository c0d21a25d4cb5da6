-- A fact about this installation, such as whether its big tables are partitioned.
-- Two instances at once: it only reads.
-- Parameters: :name.
SELECT value FROM sentinel_setting WHERE name = :name
