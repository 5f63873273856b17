-- Latency by stage
--
-- Where does the time between tick and prediction go?
--
-- Section: Engine
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   stage: source_to_consumed (received until a lane took it), features, inference, publish, or
--     tick_to_prediction (all of it)
--   predictions: how many
--   p50_us: half are not slower, in microseconds
--   p90_us: 9 of 10
--   p99_us: 99 of 100
--   p999_us: 999 of 1,000
--   max_us: the slowest
SELECT
    stage,
    predictions,
    quantiles[1] AS p50_us,
    quantiles[2] AS p90_us,
    quantiles[3] AS p99_us,
    quantiles[4] AS p999_us,
    max_us
FROM
(
    SELECT
        pair.1 AS stage,
        count() AS predictions,
        quantilesTDigest(0.5, 0.9, 0.99, 0.999)(pair.2) AS quantiles,
        max(pair.2) AS max_us
    FROM v_predictions AS p
    ARRAY JOIN
    [
        ('source_to_consumed', p.source_to_consumed_us),
        ('features', p.features_us),
        ('inference', p.inference_us),
        ('publish', p.publish_us),
        ('tick_to_prediction', p.tick_to_prediction_us)
    ] AS pair
    WHERE p.symbol LIKE {symbols:String}
        AND p.event_time >= {from:DateTime64(9, 'UTC')}
        AND p.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY stage
)
ORDER BY stage
