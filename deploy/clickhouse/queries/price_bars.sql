-- Bars of the reference price
--
-- How did the price that predictions refer to move: the mid, once there is a book?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began; intervals begin at multiples of their length since 1970
--   open: first price
--   high: highest price
--   low: lowest price
--   close: last price
--   volume: size of all trades
--   ticks: trades and quotes
--   trades: trades alone
-- Notes: the bars of the feed (channel bar.1s); a tick out of order counts in the bar that was open when it came
SELECT
    toStartOfInterval(b.bar_time, toIntervalSecond({seconds:UInt32})) AS time,
    argMin(b.open, b.bar_time) AS open,
    max(b.high) AS high,
    min(b.low) AS low,
    argMax(b.close, b.bar_time) AS close,
    sum(b.volume) AS volume,
    sum(b.ticks) AS ticks,
    sum(b.trades) AS trades
FROM v_bars_1s AS b
WHERE b.symbol = {symbol:String}
    AND b.bar_time >= {from:DateTime64(9, 'UTC')}
    AND b.bar_time < {to:DateTime64(9, 'UTC')}
GROUP BY time
ORDER BY time
