-- What this user may do with the objects of the owner, by itself (OWN), by a role or as everybody (OTHER).
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT g.table_name AS object_name, g.privilege AS privilege,
       CASE g.grantee WHEN SYS_CONTEXT('USERENV', 'SESSION_USER') THEN 'OWN' WHEN 'PUBLIC' THEN 'PUBLIC' ELSE 'ROLE' END
         AS given_to
  FROM all_tab_privs g
 WHERE g.table_schema = :owner
   AND (g.grantee = SYS_CONTEXT('USERENV', 'SESSION_USER')
        OR g.grantee = 'PUBLIC'
        OR g.grantee IN (SELECT r.role FROM session_roles r))
 ORDER BY g.table_name, g.privilege
