-- Lag by partition
--
-- How long does a prediction of each partition take to get here, and does one of them stand still?
--
-- Section: Engine
-- Parameters:
--   {minutes:UInt32} = 60: of the newest so many minutes of the market
-- Columns:
--   source_partition: of the topic of ticks
--   predictions: how many
--   newest_event_time: of the newest tick
--   behind_newest_s: of the market, behind the newest of all partitions, in seconds
--   newest_offset: of the newest block of ticks
--   p50_ms: median from publication to insertion here, in ms
--   p99_ms: 99 of 100
--   newest_published_time: by our clock
WITH (SELECT max(event_time) FROM predictions) AS newest
SELECT
    p.source_partition AS source_partition,
    count() AS predictions,
    max(p.event_time) AS newest_event_time,
    (toUnixTimestamp64Nano(newest) - toUnixTimestamp64Nano(newest_event_time)) / 1e9 AS behind_newest_s,
    max(p.source_offset) AS newest_offset,
    quantileTDigest(0.5)(delay_ms) AS p50_ms,
    quantileTDigest(0.99)(delay_ms) AS p99_ms,
    max(p.published_time) AS newest_published_time
FROM
(
    SELECT
        *,
        (toUnixTimestamp64Nano(ingested_time) - toUnixTimestamp64Nano(published_time)) / 1e6 AS delay_ms
    FROM v_predictions
    WHERE event_time >= newest - toIntervalMinute({minutes:UInt32})
) AS p
GROUP BY source_partition
ORDER BY source_partition
