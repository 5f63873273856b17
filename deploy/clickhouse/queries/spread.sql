-- Quoted spread
--
-- How wide was the spread, every quote counted for as long as it stood?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   spread_bps: time-weighted (ask - bid) / mid, in bps
--   narrowest_bps: the least
--   widest_bps: the most
--   bid_size: time-weighted size at the bid; NaN where the venue tells none
--   ask_size: likewise at the ask
--   quotes: quotes that stood at some time in the interval
-- Notes: a quote stands until the next one; the last one of the range, and quotes of one side only, are not
--     counted
WITH
    {seconds:UInt32} * 1000000000 AS length_ns,
    quotes AS
    (
        SELECT
            toUnixTimestamp64Nano(event_time) AS start_ns,
            leadInFrame(start_ns) OVER
                (ORDER BY event_time, source_seq ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING) AS end_ns,
            (ask - bid) / (0.5 * (bid + ask)) * 1e4 AS quoted_bps,
            bid_size,
            ask_size
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND isFinite(bid + ask)
    )
SELECT
    fromUnixTimestamp64Nano(number * length_ns, 'UTC') AS time,
    sum(quoted_bps * stood_ns) / sum(stood_ns) AS spread_bps,
    min(quoted_bps) AS narrowest_bps,
    max(quoted_bps) AS widest_bps,
    sum(q.bid_size * stood_ns) / sum(stood_ns) AS bid_size,
    sum(q.ask_size * stood_ns) / sum(stood_ns) AS ask_size,
    count() AS quotes
FROM
(
    SELECT
        quoted_bps,
        bid_size,
        ask_size,
        arrayJoin(range(intDiv(start_ns, length_ns), intDiv(end_ns - 1, length_ns) + 1)) AS number,
        least(end_ns, (number + 1) * length_ns) - greatest(start_ns, number * length_ns) AS stood_ns
    FROM quotes
    WHERE end_ns > start_ns
) AS q
GROUP BY number
ORDER BY number
