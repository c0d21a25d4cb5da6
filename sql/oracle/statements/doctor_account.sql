-- Whether the password of this user comes to its end, and when.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT username, account_status, CAST(expiry_date AS TIMESTAMP(6)) AS expires_at FROM user_users
