-- Bollinger bands
--
-- Where is the close within its Bollinger bands, and how wide are they?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {period:UInt32} = 20: bars of the bands
--   {sigmas:Float64} = 2: standard deviations from the middle to a band
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   middle: mean of the last closes
--   lower: lower band
--   upper: upper band
--   percent_b: 0 at the lower band, 1 at the upper one; 0.5 while flat
--   width_bps: (upper - lower) / middle, in bps
-- Notes: the engine's bar_60s_bollinger_20_*
-- Source: Bollinger, "Bollinger on Bollinger Bands", 2001
WITH bars AS
(
    SELECT time, close
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
    avg(close) OVER recent AS middle,
    middle - {sigmas:Float64} * stddevPopStable(close) OVER recent AS lower,
    middle + {sigmas:Float64} * stddevPopStable(close) OVER recent AS upper,
    -- Below a thousandth of a bp a band is rounding.
    if(upper - lower <= close * 1e-7, 0.5, (close - lower) / (upper - lower)) AS percent_b,
    if(upper - lower <= close * 1e-7, 0, (upper - lower) / middle * 1e4) AS width_bps
FROM bars
WINDOW recent AS (ORDER BY time ROWS BETWEEN {period:UInt32} - 1 PRECEDING AND CURRENT ROW)
ORDER BY time
