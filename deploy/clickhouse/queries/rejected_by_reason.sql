-- Rejected ticks by reason
--
-- Which ticks were refused, and why?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   reason: why
--   rejected: how many
--   share: of all refused ticks of the symbol, 0 to 1
--   first: event time of the first
--   last: of the last
SELECT
    r.symbol AS symbol,
    r.reason AS reason,
    count() AS rejected,
    rejected / sum(rejected) OVER (PARTITION BY symbol) AS share,
    min(r.event_time) AS first,
    max(r.event_time) AS last
FROM v_rejected AS r
WHERE r.symbol LIKE {symbols:String}
    AND r.event_time >= {from:DateTime64(9, 'UTC')}
    AND r.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol, reason
ORDER BY symbol, rejected DESC, reason
