-- Volume by hour of the day
--
-- At which hours does a symbol trade?
--
-- Section: Liquidity
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   hour_of_day: 0 to 23, UTC
--   days: days that have a trade in this hour
--   volume_per_day: mean volume of the hour on these days
--   share: of the volume of all hours, 0 to 1
--   mean_range_bps: mean of (high - low) / open, in bps
SELECT
    b.symbol AS symbol,
    toHour(b.bar_time) AS hour_of_day,
    count() AS days,
    sum(b.volume) / days AS volume_per_day,
    sum(b.volume) / sum(sum(b.volume)) OVER (PARTITION BY b.symbol) AS share,
    avg((b.high - b.low) / b.open) * 1e4 AS mean_range_bps
FROM v_bars_1h AS b
WHERE b.symbol LIKE {symbols:String}
    AND b.bar_time >= {from:DateTime64(9, 'UTC')}
    AND b.bar_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol, hour_of_day
ORDER BY symbol, hour_of_day
