-- ATR
--
-- What is Wilder's average true range?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {period:UInt32} = 14: of the average
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   true_range: highest of high and last close, less lowest of low and last close; NaN in the first bar
--   atr: its smoothed average; NaN in the first bar
--   atr_bps: atr / close, in bps
-- Notes: the engine's bar_60s_atr_14_bps
-- Source: Wilder, "New Concepts in Technical Trading Systems", 1978
WITH
    bars AS
    (
        SELECT time, high, low, close
        FROM v_tick_bars(
            symbol = {symbol:String},
            kind = {kind:String},
            seconds = 60 * {minutes:UInt32},
            from = {from:DateTime64(9, 'UTC')},
            to = {to:DateTime64(9, 'UTC')}
        )
    ),
    ranges AS
    (
        SELECT
            time,
            close,
            toInt64(row_number() OVER run) - 1 AS number,
            lagInFrame(close) OVER run AS before,
            if(number = 0, NaN, greatest(high, before) - least(low, before)) AS true_range
        FROM bars
        WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    means AS
    (
        SELECT
            *,
            sum(if(number = 0, 0, true_range)) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                / greatest(number, 1) AS mean_range
        FROM ranges
    )
SELECT
    time,
    close,
    true_range,
    multiIf(
        number = 0, NaN,
        number <= {period:UInt32}, mean_range,
        exponentialTimeDecayedSum(-1 / log(1 - 1 / {period:UInt32}))(
            multiIf(
                number < {period:UInt32}, 0.,
                number = {period:UInt32}, mean_range,
                true_range / {period:UInt32}
            ),
            number
        ) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ) AS atr,
    atr / close * 1e4 AS atr_bps
FROM means
ORDER BY time
