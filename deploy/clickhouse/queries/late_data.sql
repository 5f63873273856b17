-- Late data
--
-- How old are ticks when we get them, and how many come out of order?
--
-- Section: Data quality
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   hour: when the hour began
--   ticks: how many
--   p50_ms: median of receipt less event time, in ms; below 0 where the venue's clock is ahead of ours
--   p99_ms: 99 of 100 are not older
--   max_ms: the oldest
--   ahead: ticks whose event time is after their receipt
--   out_of_order: ticks older than one of the symbol that came before them
--   furthest_behind_ms: by how much at the most
WITH ticks AS
(
    SELECT
        event_time,
        (toUnixTimestamp64Nano(recv_time) - toUnixTimestamp64Nano(event_time)) / 1e6 AS age_ms,
        max(event_time) OVER
            (ORDER BY source_offset * 4096 + source_index ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS newest
    FROM v_ticks
    WHERE symbol = {symbol:String}
        AND event_time >= {from:DateTime64(9, 'UTC')}
        AND event_time < {to:DateTime64(9, 'UTC')}
)
SELECT
    toStartOfHour(event_time) AS hour,
    count() AS ticks,
    quantileTDigest(0.5)(age_ms) AS p50_ms,
    quantileTDigest(0.99)(age_ms) AS p99_ms,
    max(age_ms) AS max_ms,
    countIf(age_ms < 0) AS ahead,
    countIf(event_time < newest) AS out_of_order,
    max((toUnixTimestamp64Nano(newest) - toUnixTimestamp64Nano(event_time)) / 1e6) AS furthest_behind_ms
FROM ticks
GROUP BY hour
ORDER BY hour
