-- Says for how long the oldest open transaction that may hold lines has been open.
-- Two instances at once: it only reads.
-- Parameters: :cur (out: age_s, whole seconds, rather one too many than one too few).
BEGIN sentinel_svc.open_writes(:cur); END;
