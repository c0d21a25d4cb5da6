-- Says what kind of session this is: whose server process, and whether something replays behind our back.
-- Two instances at once: it only reads.
-- Parameters: :cur (out: server, failover_type).
BEGIN sentinel_svc.session_kind(:cur); END;
