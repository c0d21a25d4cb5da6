-- Tables of the owner that have partitions, and whether they make new ones by themselves.
-- Their partitions are counted, because PARTITION_COUNT is 1048575 for every table with an interval.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT t.table_name AS table_name, t.interval AS interval_text,
       (SELECT COUNT(*) FROM all_tab_partitions p
         WHERE p.table_owner = t.owner AND p.table_name = t.table_name) AS partitions
  FROM all_part_tables t
 WHERE t.owner = :owner
 ORDER BY t.table_name
