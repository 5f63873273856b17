-- Sizes of trades
--
-- How large are trades, and who makes the volume: small ones or large ones?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   size_from: trades of this size and up to ten times it; 0 is for trades without size
--   trades: how many
--   volume: size of all of them
--   share_of_trades: 0 to 1
--   share_of_volume: 0 to 1
--   median_size: in this class
SELECT
    if(t.size > 0, exp10(floor(log10(t.size) + 1e-9)), 0) AS size_from,
    count() AS trades,
    sum(t.size) AS volume,
    trades / sum(trades) OVER () AS share_of_trades,
    volume / sum(volume) OVER () AS share_of_volume,
    quantileExact(0.5)(t.size) AS median_size
FROM v_accepted_ticks AS t
WHERE t.symbol = {symbol:String}
    AND t.event_time >= {from:DateTime64(9, 'UTC')}
    AND t.event_time < {to:DateTime64(9, 'UTC')}
    AND t.kind = 'trade'
GROUP BY size_from
ORDER BY size_from
