-- Objects of the owner that do not compile, as far as this user sees them: no bodies of packages.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT object_type, object_name
  FROM all_objects
 WHERE owner = :owner
   AND status = 'INVALID'
 ORDER BY object_type, object_name
