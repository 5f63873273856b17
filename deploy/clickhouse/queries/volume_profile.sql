-- Volume by price
--
-- At which prices was most traded?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {step:Float64} = 0.01: height of a price level
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   level: the price level, the nearest multiple of the step
--   volume: size of the trades there
--   trades: how many
--   share: of all volume, 0 to 1
--   is_most: 1 at the level with the most volume
-- Source: Steidlmayer, "Markets and Market Logic", 1986 (market profile)
SELECT
    round(t.price / {step:Float64}) * {step:Float64} AS level,
    sum(t.size) AS volume,
    count() AS trades,
    volume / sum(volume) OVER () AS share,
    toUInt8(volume = max(volume) OVER ()) AS is_most
FROM v_accepted_ticks AS t
WHERE t.symbol = {symbol:String}
    AND t.event_time >= {from:DateTime64(9, 'UTC')}
    AND t.event_time < {to:DateTime64(9, 'UTC')}
    AND t.kind = 'trade'
GROUP BY level
ORDER BY level
