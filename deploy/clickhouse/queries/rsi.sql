-- RSI
--
-- What is Wilder's relative strength index?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of a bar
--   {kind:String} = trade: bars of trade prices; quote: of the mids of quotes
--   {period:UInt32} = 14: of the averages
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the bar began
--   close: last price
--   average_gain: of the closes, smoothed
--   average_loss: likewise
--   rsi: 0 to 100; 50 while nothing moved
-- Notes: the engine's bar_60s_rsi_14
-- Source: Wilder, "New Concepts in Technical Trading Systems", 1978
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
    moves AS
    (
        SELECT
            time,
            close,
            toInt64(row_number() OVER run) - 1 AS number,
            if(number = 0, 0, close - lagInFrame(close) OVER run) AS move
        FROM bars
        WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    means AS
    (
        SELECT
            *,
            greatest(move, 0) AS gain,
            greatest(-move, 0) AS loss,
            sum(gain) OVER run / greatest(number, 1) AS mean_gain,
            sum(loss) OVER run / greatest(number, 1) AS mean_loss
        FROM moves
        WINDOW run AS (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
SELECT
    time,
    close,
    if(number <= {period:UInt32}, mean_gain, exponentialTimeDecayedSum(-1 / log(1 - 1 / {period:UInt32}))(
        multiIf(number < {period:UInt32}, 0., number = {period:UInt32}, mean_gain, gain / {period:UInt32}),
        number
    ) OVER run) AS average_gain,
    if(number <= {period:UInt32}, mean_loss, exponentialTimeDecayedSum(-1 / log(1 - 1 / {period:UInt32}))(
        multiIf(number < {period:UInt32}, 0., number = {period:UInt32}, mean_loss, loss / {period:UInt32}),
        number
    ) OVER run) AS average_loss,
    if(average_gain + average_loss > 0, 100 * average_gain / (average_gain + average_loss), 50) AS rsi
FROM means
WINDOW run AS (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY time
