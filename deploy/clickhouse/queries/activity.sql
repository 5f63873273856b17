-- What there is
--
-- Which symbols are there, from when to when, and how many ticks of each kind?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   first: time of its first tick
--   last: time of its last
--   ticks: how many
--   trades: of these
--   quotes: of these
--   notional: price times size of the trades
SELECT
    t.symbol AS symbol,
    min(t.event_time) AS first,
    max(t.event_time) AS last,
    count() AS ticks,
    countIf(t.kind = 'trade') AS trades,
    countIf(t.kind = 'quote') AS quotes,
    sumIf(t.price * t.size, t.kind = 'trade') AS notional
FROM v_ticks AS t
WHERE t.symbol LIKE {symbols:String}
    AND t.event_time >= {from:DateTime64(9, 'UTC')}
    AND t.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol
ORDER BY ticks DESC, symbol
