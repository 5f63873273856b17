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
SELECT time, open, high, low, close, volume, ticks AS trades, notional / volume AS vwap
FROM v_tick_bars(
    symbol = {symbol:String},
    kind = 'trade',
    seconds = {seconds:UInt32},
    from = {from:DateTime64(9, 'UTC')},
    to = {to:DateTime64(9, 'UTC')}
)
ORDER BY time
