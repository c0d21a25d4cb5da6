-- Says for whom this session asks from now on: what row security and V$SESSION go by.
-- Two instances at once: it is about this session alone.
-- Parameters: :tenant_id.
BEGIN sentinel_svc.set_tenant(:tenant_id); END;
