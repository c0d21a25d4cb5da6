-- What this user has been granted of the database itself, directly.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT 'PRIVILEGE' AS kind, privilege AS name FROM user_sys_privs
 UNION ALL
SELECT 'ROLE' AS kind, granted_role AS name FROM user_role_privs
