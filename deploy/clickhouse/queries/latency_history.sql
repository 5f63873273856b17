-- Latency over time
--
-- Did the engine become slower?
--
-- Section: Engine
-- Parameters:
--   {stage:String} = tick_to_prediction: source_to_consumed, features, inference, publish or tick_to_prediction
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: published from this time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: published before this time, UTC
-- Columns:
--   hour: when the hour began, by our clock
--   predictions: how many
--   typical_p50_us: median over minutes of their median, in microseconds
--   typical_p99_us: median over minutes of their p99
--   worst_p99_us: p99 of the worst minute
--   max_us: the slowest prediction
--   worst_minute: when the worst minute began
SELECT
    toStartOfHour(l.minute) AS hour,
    sum(l.predictions) AS predictions,
    quantileExactLow(0.5)(l.p50_us) AS typical_p50_us,
    quantileExactLow(0.5)(l.p99_us) AS typical_p99_us,
    max(l.p99_us) AS worst_p99_us,
    max(l.max_us) AS max_us,
    argMax(l.minute, l.p99_us) AS worst_minute
FROM v_stage_latency AS l
WHERE l.stage = {stage:String}
    AND l.minute >= {from:DateTime64(9, 'UTC')}
    AND l.minute < {to:DateTime64(9, 'UTC')}
GROUP BY hour
ORDER BY hour
