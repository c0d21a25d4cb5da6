-- Sets an event aside, whole.
-- Two instances at once: a message is in one transaction only.
-- Parameters: :tenant_id, :reason, :detail, :source, :event_id, :stream_key, :stream_seq, :msgid, :created_utc, and last
-- :event_snapshot.
INSERT INTO dead_letter
  (tenant_id, reason, detail, source, event_id, stream_key, stream_seq, msgid, created_utc, event_snapshot)
VALUES
  (:tenant_id, :reason, :detail, :source, :event_id, :stream_key, :stream_seq, :msgid, :created_utc, :event_snapshot)
