-- Odd quotes and trades
--
-- How many quotes are locked, crossed or of one side, and how many trades have no size?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   quotes: how many
--   locked_share: bid = ask
--   crossed_share: bid > ask
--   one_sided_share: a side is missing
--   trades: how many
--   without_size_share: size 0
SELECT
    t.symbol AS symbol,
    countIf(t.kind = 'quote') AS quotes,
    countIf(t.kind = 'quote' AND t.bid = t.ask) / quotes AS locked_share,
    countIf(t.kind = 'quote' AND t.bid > t.ask) / quotes AS crossed_share,
    countIf(t.kind = 'quote' AND isNaN(t.bid + t.ask)) / quotes AS one_sided_share,
    countIf(t.kind = 'trade') AS trades,
    countIf(t.kind = 'trade' AND t.size = 0) / trades AS without_size_share
FROM v_ticks AS t
WHERE t.symbol LIKE {symbols:String}
    AND t.event_time >= {from:DateTime64(9, 'UTC')}
    AND t.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol
ORDER BY symbol
