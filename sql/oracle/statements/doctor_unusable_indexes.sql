-- Indexes of the owner, or parts of them, that cannot be used: inserts fail where one is unique.
-- Two instances at once: it only reads.
-- Parameters: :owner, :owner_again.
SELECT i.index_name AS index_name, NULL AS partition_name
  FROM all_indexes i
 WHERE i.owner = :owner
   AND i.status = 'UNUSABLE'
 UNION ALL
SELECT p.index_name AS index_name, p.partition_name AS partition_name
  FROM all_ind_partitions p
 WHERE p.index_owner = :owner_again
   AND p.status = 'UNUSABLE'
