-- VWAP since the start
--
-- How does the price stand to the volume-weighted average price of all trades since the start of the range?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   volume: size of the trades in the bar
--   bar_vwap: VWAP of the bar
--   running_vwap: VWAP of all trades from the start of the range to the end of the bar
--   gap_bps: close above running_vwap, in bps
-- Source: Berkowitz, Logue, Noser, "The total cost of transactions on the NYSE", J. Finance 43(1), 1988
SELECT
    b.time AS time,
    b.close AS close,
    b.volume AS volume,
    b.notional / b.volume AS bar_vwap,
    sum(b.notional) OVER run / sum(b.volume) OVER run AS running_vwap,
    (close / running_vwap - 1) * 1e4 AS gap_bps
FROM v_tick_bars(
    symbol = {symbol:String},
    kind = 'trade',
    seconds = 60 * {minutes:UInt32},
    from = {from:DateTime64(9, 'UTC')},
    to = {to:DateTime64(9, 'UTC')}
) AS b
WINDOW run AS (ORDER BY b.time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY time
