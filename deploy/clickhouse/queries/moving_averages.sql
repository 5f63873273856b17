-- Moving averages (SMA, EMA)
--
-- Where is the close relative to its simple and its exponential moving average?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {period:UInt32} = 20: bars of both averages
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   sma: mean of the last closes
--   ema: exponential average, weight 2 / (period + 1)
--   sma_gap_bps: close above sma, in bps
--   ema_gap_bps: close above ema, in bps
-- Notes: the engine's bar_60s_sma_20_gap_bps and bar_60s_ema_12_gap_bps (with period 12); while there are fewer
--     bars than the period, both are the mean of those that there are
WITH
    bars AS
    (
        SELECT time, close
        FROM v_tick_bars(
            symbol = {symbol:String},
            kind = {kind:String},
            seconds = 60 * {minutes:UInt32},
            from = {from:DateTime64(9, 'UTC')},
            to = {to:DateTime64(9, 'UTC')}
        )
    ),
    counted AS
    (
        SELECT
            time,
            close,
            row_number() OVER run AS number,
            avg(close) OVER run AS mean
        FROM bars
        WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
SELECT
    time,
    close,
    avg(close) OVER (ORDER BY time ROWS BETWEEN {period:UInt32} - 1 PRECEDING AND CURRENT ROW) AS sma,
    if(number <= {period:UInt32}, mean, exponentialTimeDecayedSum(-1 / log(1 - 2 / ({period:UInt32} + 1)))(
        multiIf(number < {period:UInt32}, 0., number = {period:UInt32}, mean, close * 2 / ({period:UInt32} + 1)),
        number
    ) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS ema,
    (close / sma - 1) * 1e4 AS sma_gap_bps,
    (close / ema - 1) * 1e4 AS ema_gap_bps
FROM counted
ORDER BY time
