-- Storage by table
--
-- How much room does each table take, and each of its rows?
--
-- Section: Engine
-- Columns:
--   table: the table
--   rows: stored, repeats that are not merged yet among them
--   bytes_on_disk: with indexes and marks
--   bytes_per_row: on disk
--   compression: uncompressed bytes for each compressed one
--   parts: active parts
--   first_partition: the oldest
--   last_partition: the newest
SELECT
    p.table AS table,
    sum(p.rows) AS rows,
    sum(p.bytes_on_disk) AS bytes_on_disk,
    sum(p.bytes_on_disk) / rows AS bytes_per_row,
    sum(p.data_uncompressed_bytes) / sum(p.data_compressed_bytes) AS compression,
    count() AS parts,
    min(p.partition) AS first_partition,
    max(p.partition) AS last_partition
FROM system.parts AS p
WHERE p.active AND p.database = currentDatabase()
GROUP BY table
ORDER BY bytes_on_disk DESC, table
