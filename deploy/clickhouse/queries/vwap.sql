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
WITH bars AS
(
    SELECT
        toStartOfInterval(t.event_time, toIntervalMinute({minutes:UInt32})) AS time,
        argMax(t.price, (t.event_time, t.source_seq)) AS close,
        sum(t.size) AS volume,
        sum(t.price * t.size) AS notional
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
)
SELECT
    time,
    close,
    volume,
    notional / volume AS bar_vwap,
    sum(notional) OVER run / sum(volume) OVER run AS running_vwap,
    (close / running_vwap - 1) * 1e4 AS gap_bps
FROM bars
WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
ORDER BY time
