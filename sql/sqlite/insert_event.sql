-- Writes one applied event; {n} is the number of its table. One listener at a time holds the store.
INSERT INTO events_{n} (
    position, tenant_id, source_id, type_id, stream_id, stream_seq, event_id, event_mark, flags, occurred_us,
    ordered_us, received_us, processed_us, schema_version, idempotency_key, hash, trace, payload
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
