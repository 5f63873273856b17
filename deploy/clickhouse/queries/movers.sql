-- Movers
--
-- Which symbols moved and traded most?
--
-- Section: Prices
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   symbol: the symbol
--   first: first price
--   last: last price
--   return_bps: from first to last, in bps
--   range_bps: from lowest to highest, over the first, in bps
--   trades: how many trades
--   notional: price times size of them
SELECT
    b.symbol AS symbol,
    argMin(b.open, b.bar_time) AS first,
    argMax(b.close, b.bar_time) AS last,
    (last / first - 1) * 1e4 AS return_bps,
    (max(b.high) - min(b.low)) / first * 1e4 AS range_bps,
    sum(b.trades) AS trades,
    sum(b.notional) AS notional
FROM v_bars_1m AS b
WHERE b.symbol LIKE {symbols:String}
    AND b.bar_time >= {from:DateTime64(9, 'UTC')}
    AND b.bar_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol
ORDER BY abs(return_bps) DESC, symbol
LIMIT {limit:UInt32}
