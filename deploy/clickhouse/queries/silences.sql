-- Silences
--
-- When did a symbol say nothing for long?
--
-- Section: Data quality
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {longer_s:Float64} = 5: only silences longer than this, in seconds
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   last_tick: the tick before the silence
--   next_tick: the tick that ended it
--   silence_s: seconds between them
SELECT
    last_tick,
    next_tick,
    (toUnixTimestamp64Nano(next_tick) - toUnixTimestamp64Nano(last_tick)) / 1e9 AS silence_s
FROM
(
    SELECT
        event_time AS next_tick,
        lagInFrame(event_time, 1, event_time) OVER
            (ORDER BY event_time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS last_tick
    FROM v_accepted_ticks
    WHERE symbol = {symbol:String}
        AND event_time >= {from:DateTime64(9, 'UTC')}
        AND event_time < {to:DateTime64(9, 'UTC')}
)
WHERE silence_s > {longer_s:Float64}
ORDER BY silence_s DESC, last_tick
LIMIT {limit:UInt32}
