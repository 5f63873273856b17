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
    SELECT
        time,
        max(price) AS high,
        min(price) AS low,
        argMax(price, place) AS close
    FROM
    (
        SELECT
            toStartOfInterval(t.event_time, toIntervalMinute({minutes:UInt32})) AS time,
            if(t.kind = 'trade', t.price, 0.5 * (t.bid + t.ask)) AS price,
            (t.event_time, t.source_seq) AS place
        FROM v_ticks AS t
        WHERE t.symbol = {symbol:String}
            AND t.event_time >= {from:DateTime64(9, 'UTC')}
            AND t.event_time < {to:DateTime64(9, 'UTC')}
            AND t.kind = {kind:String}
            AND (epoch, source_offset, source_index) NOT IN
            (
                SELECT epoch, source_offset, source_index FROM v_rejected WHERE symbol = {symbol:String}
            )
    )
    WHERE isFinite(price)
    GROUP BY time
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
