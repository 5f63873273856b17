-- TWAP of the mid
--
-- What was the time-weighted average mid price of each interval, every mid counted for as long as it stood?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   twap: time-weighted mid
--   known_s: seconds of the interval in which there was a mid
--   quotes: quotes that stood at some time in the interval
-- Notes: a mid stands until the next quote; that of the last quote of the range is not counted
WITH
    {seconds:UInt32} * 1000000000 AS length_ns,
    quotes AS
    (
        SELECT
            toUnixTimestamp64Nano(event_time) AS start_ns,
            leadInFrame(start_ns) OVER
                (ORDER BY event_time, source_seq ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING) AS end_ns,
            0.5 * (bid + ask) AS mid
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND isFinite(bid + ask)
    )
SELECT
    fromUnixTimestamp64Nano(number * length_ns, 'UTC') AS time,
    sum(mid * stood_ns) / sum(stood_ns) AS twap,
    sum(stood_ns) / 1e9 AS known_s,
    count() AS quotes
FROM
(
    SELECT
        mid,
        arrayJoin(range(intDiv(start_ns, length_ns), intDiv(end_ns - 1, length_ns) + 1)) AS number,
        least(end_ns, (number + 1) * length_ns) - greatest(start_ns, number * length_ns) AS stood_ns
    FROM quotes
    WHERE end_ns > start_ns
)
GROUP BY number
ORDER BY number
