-- Counts what a batch added to a rolled table, so that readers can pass over tables that hold nothing for them.
INSERT INTO event_table (
    n, rows, first_position, last_position, first_received_us, last_received_us, first_ordered_us, last_ordered_us
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (n) DO UPDATE SET
    rows = rows + excluded.rows,
    first_position = min(first_position, excluded.first_position),
    last_position = max(last_position, excluded.last_position),
    first_received_us = min(first_received_us, excluded.first_received_us),
    last_received_us = max(last_received_us, excluded.last_received_us),
    first_ordered_us = min(first_ordered_us, excluded.first_ordered_us),
    last_ordered_us = max(last_ordered_us, excluded.last_ordered_us)
