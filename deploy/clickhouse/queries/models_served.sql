-- Models that served
--
-- Which models predicted, when, and for how many symbols?
--
-- Section: Models
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   model: id
--   first: event time of its first prediction
--   last: of its last
--   predictions: how many
--   symbols: how many
--   warming_share: share of predictions before the model had seen enough ticks
--   mean_p_up: mean probability of a rise
--   mean_p_down: of a fall
SELECT
    p.model AS model,
    min(p.event_time) AS first,
    max(p.event_time) AS last,
    count() AS predictions,
    uniqExact(p.symbol) AS symbols,
    avg(p.warming) AS warming_share,
    avg(toFloat64(p.p_up)) AS mean_p_up,
    avg(toFloat64(p.p_down)) AS mean_p_down
FROM v_predictions AS p
WHERE p.symbol LIKE {symbols:String}
    AND p.event_time >= {from:DateTime64(9, 'UTC')}
    AND p.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY model
ORDER BY first, model
