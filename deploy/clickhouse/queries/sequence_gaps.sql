-- Numbers that are missing
--
-- Did a source number ticks that never arrived?
--
-- Section: Data quality
-- Parameters:
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   stream_id: one run of one feed
--   first_seq: the lowest number
--   last_seq: the highest
--   ticks: how many there are
--   missing: numbers between first and last that are not there
--   symbols: how many symbols
--   first: event time of the first tick
--   last: of the last
-- Notes: a source numbers its whole stream without gaps, so a part of it by symbol has gaps, and a part by time
--     may seem to have some at its ends
SELECT
    t.stream_id AS stream_id,
    min(t.source_seq) AS first_seq,
    max(t.source_seq) AS last_seq,
    count() AS ticks,
    last_seq - first_seq + 1 - ticks AS missing,
    uniqExact(t.symbol) AS symbols,
    min(t.event_time) AS first,
    max(t.event_time) AS last
FROM v_ticks AS t
WHERE t.event_time >= {from:DateTime64(9, 'UTC')} AND t.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY stream_id
ORDER BY missing DESC, stream_id
