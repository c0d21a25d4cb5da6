-- All objects of the owner that do not compile. Needs SELECT on DBA_OBJECTS.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT object_type, object_name
  FROM dba_objects
 WHERE owner = :owner
   AND status = 'INVALID'
 ORDER BY object_type, object_name
