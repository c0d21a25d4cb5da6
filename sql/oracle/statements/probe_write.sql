-- A write that means nothing, to see that writes go through (law 6).
-- Two instances at once: each has a row of its own name, and those of one host take turns at one.
-- Parameters: :last_seen_utc, :tenant_id (#none), :stream_key (which listener).
UPDATE stream_state SET last_seen_utc = :last_seen_utc WHERE tenant_id = :tenant_id AND stream_key = :stream_key
