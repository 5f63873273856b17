-- Storage by column
--
-- Which columns take the room?
--
-- Section: Engine
-- Parameters:
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   table: the table
--   column: the column
--   compressed_bytes: on disk
--   share: of its table, 0 to 1
--   compression: uncompressed bytes for each compressed one
--   codec: how it is compressed
SELECT
    c.table AS table,
    c.name AS column,
    c.data_compressed_bytes AS compressed_bytes,
    compressed_bytes / sum(c.data_compressed_bytes) OVER (PARTITION BY c.table) AS share,
    c.data_uncompressed_bytes / compressed_bytes AS compression,
    c.compression_codec AS codec
FROM system.columns AS c
WHERE c.database = currentDatabase() AND c.data_compressed_bytes > 0
ORDER BY compressed_bytes DESC, table, column
LIMIT {limit:UInt32}
