-- Which messages are set aside already, as known_events.
-- Two instances at once: it only reads.
-- Parameters: :msgid, as many as the list is made long.
SELECT msgid FROM dead_letter WHERE msgid IN ((:msgid))
