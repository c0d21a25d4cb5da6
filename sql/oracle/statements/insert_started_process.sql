-- Makes a process known the moment that its start is accepted, if it is not known yet.
-- Two instances at once: one inserts, the other fails by the primary key, which changes nothing and is passed over.
-- Parameters: :tenant_id, :process_id, :registered_at.
INSERT INTO process_registry (tenant_id, process_id, status, registered_at)
VALUES (:tenant_id, :process_id, 'RUNNING', :registered_at)
