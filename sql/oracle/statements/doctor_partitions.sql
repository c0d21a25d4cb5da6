-- The ends of a table's partitions, the newest last.
-- Two instances at once: it only reads.
-- Parameters: :owner, :table_name.
SELECT partition_name, high_value
  FROM all_tab_partitions
 WHERE table_owner = :owner
   AND table_name = :table_name
 ORDER BY partition_position
