-- What there is
--
-- Which symbols are there, from when to when, and how much happened in them?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   first: minute of its first tick
--   last: minute of its last
--   ticks: how many were used
--   trades: of these
--   quotes: of these
--   notional: price times size of the trades
-- Notes: from bars of a minute, so that all symbols of a year are told at once
SELECT
    b.symbol AS symbol,
    min(b.bar_time) AS first,
    max(b.bar_time) AS last,
    sum(b.ticks) AS ticks,
    sum(b.trades) AS trades,
    ticks - trades AS quotes,
    sum(b.notional) AS notional
FROM v_bars_1m AS b
WHERE b.symbol LIKE {symbols:String}
    AND b.bar_time >= {from:DateTime64(9, 'UTC')}
    AND b.bar_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol
ORDER BY ticks DESC, symbol
