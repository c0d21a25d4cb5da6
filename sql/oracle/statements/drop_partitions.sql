-- Drops the partitions of a table that hold nothing newer than :before. It commits.
-- Two instances at once: one drops, the other finds nothing left or is told that the table is busy.
-- Parameters: :table_name (EVENTS or PROCESS_LOGS), :before, :dropped (out: how many).
BEGIN sentinel_svc.drop_partitions(:table_name, :before, :dropped); END;
