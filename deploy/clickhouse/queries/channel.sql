-- Channel and rate of change
--
-- Where is the close within the range of the last bars, and how far has it come?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {period:UInt32} = 20: bars of the channel
--   {back:UInt32} = 10: bars of the rate of change
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   highest: highest high of the last bars
--   lowest: lowest low of the last bars
--   position: 0 at the lowest, 1 at the highest; 0.5 while flat
--   roc_bps: close against the close so many bars ago, in bps; 0 while there is none
-- Notes: the engine's bar_60s_channel_20_position and bar_60s_roc_10_bps
WITH bars AS
(
    SELECT time, high, low, close
    FROM v_tick_bars(
        symbol = {symbol:String},
        kind = {kind:String},
        seconds = 60 * {minutes:UInt32},
        from = {from:DateTime64(9, 'UTC')},
        to = {to:DateTime64(9, 'UTC')}
    )
)
SELECT
    time,
    close,
    max(high) OVER recent AS highest,
    min(low) OVER recent AS lowest,
    if(highest > lowest, (close - lowest) / (highest - lowest), 0.5) AS position,
    (close / lagInFrame(close, {back:UInt32}, close) OVER run - 1) * 1e4 AS roc_bps
FROM bars
WINDOW
    run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
    recent AS (ORDER BY time ROWS BETWEEN {period:UInt32} - 1 PRECEDING AND CURRENT ROW)
ORDER BY time
