-- What users but this one may do with the objects of the owner. Needs SELECT on DBA_TAB_PRIVS.
-- Two instances at once: it only reads.
-- Parameters: :owner, :own_user.
SELECT grantee, table_name AS object_name, privilege
  FROM dba_tab_privs
 WHERE owner = :owner
   AND grantee != :own_user
 ORDER BY grantee, table_name, privilege
