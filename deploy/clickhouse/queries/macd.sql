-- MACD
--
-- What are MACD, its signal line and the histogram?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {fast:UInt32} = 12: bars of the fast average
--   {slow:UInt32} = 26: bars of the slow average
--   {signal:UInt32} = 9: values of the signal line
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   macd: EMA(fast) - EMA(slow) of the closes
--   signal_line: EMA(signal) of macd; 0 before the slow average is full
--   histogram: macd - signal_line; 0 likewise
-- Notes: the engine's bar_60s_macd_* are these, divided by the close, in bps
-- Source: Appel, "Technical Analysis: Power Tools for Active Investors", 2005
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
            toInt64(row_number() OVER run) AS number,
            avg(close) OVER run AS mean
        FROM bars
        WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    averages AS
    (
        SELECT
            time,
            close,
            number,
            if(number <= {fast:UInt32}, mean, exponentialTimeDecayedSum(-1 / log(1 - 2 / ({fast:UInt32} + 1)))(
                multiIf(number < {fast:UInt32}, 0., number = {fast:UInt32}, mean, close * 2 / ({fast:UInt32} + 1)),
                number
            ) OVER run) AS ema_fast,
            if(number <= {slow:UInt32}, mean, exponentialTimeDecayedSum(-1 / log(1 - 2 / ({slow:UInt32} + 1)))(
                multiIf(number < {slow:UInt32}, 0., number = {slow:UInt32}, mean, close * 2 / ({slow:UInt32} + 1)),
                number
            ) OVER run) AS ema_slow,
            ema_fast - ema_slow AS macd,
            -- Values since the slow average is full.
            number + 1 - {slow:UInt32} AS known
        FROM counted
        WINDOW run AS (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    means AS
    (
        SELECT
            *,
            sum(if(known > 0, macd, 0)) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
                / greatest(known, 1) AS mean_macd
        FROM averages
    )
SELECT
    time,
    close,
    macd,
    if(known <= {signal:UInt32}, mean_macd, exponentialTimeDecayedSum(-1 / log(1 - 2 / ({signal:UInt32} + 1)))(
        multiIf(known < {signal:UInt32}, 0., known = {signal:UInt32}, mean_macd, macd * 2 / ({signal:UInt32} + 1)),
        number
    ) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS signal_line,
    if(known > 0, macd - signal_line, 0) AS histogram
FROM means
ORDER BY time
