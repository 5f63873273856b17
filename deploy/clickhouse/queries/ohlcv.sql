-- OHLCV bars of trades
--
-- What were open, high, low, close, volume and VWAP in each interval?
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
--   trades: how many trades
--   vwap: price of the average unit traded; NaN where no size was
-- Notes: an interval without a trade has no row
SELECT
    toStartOfInterval(t.event_time, toIntervalSecond({seconds:UInt32})) AS time,
    argMin(t.price, (t.event_time, t.source_seq)) AS open,
    max(t.price) AS high,
    min(t.price) AS low,
    argMax(t.price, (t.event_time, t.source_seq)) AS close,
    sum(t.size) AS volume,
    count() AS trades,
    sum(t.price * t.size) / volume AS vwap
FROM v_ticks AS t
WHERE t.symbol = {symbol:String}
    AND t.event_time >= {from:DateTime64(9, 'UTC')}
    AND t.event_time < {to:DateTime64(9, 'UTC')}
    AND t.kind = 'trade'
    AND (epoch, source_offset, source_index) NOT IN
    (
        SELECT epoch, source_offset, source_index FROM v_rejected WHERE symbol = {symbol:String}
    )
GROUP BY time
ORDER BY time
