-- Latency by stage
--
-- Where does the time between tick and prediction go?
--
-- Section: Engine
-- Parameters:
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   stage: source_to_consumed (received until a lane took it), features, inference, publish, or
--     tick_to_prediction (all of it)
--   predictions: how many
--   p50_us: half are not slower, in microseconds, to three digits
--   p90_us: 9 of 10
--   p99_us: 99 of 100
--   p999_us: 999 of 1,000
--   max_us: the slowest
-- Notes: from the histograms of each minute; those of the minutes in which the range begins and ends count as a
--     whole where the minute begins within it
SELECT
    stage,
    predictions,
    quantiles_ns[1] / 1e3 AS p50_us,
    quantiles_ns[2] / 1e3 AS p90_us,
    quantiles_ns[3] / 1e3 AS p99_us,
    quantiles_ns[4] / 1e3 AS p999_us,
    max_us
FROM
(
    SELECT
        l.stage AS stage,
        sum(n) AS predictions,
        quantilesExactWeighted(0.5, 0.9, 0.99, 0.999)(ns, n) AS quantiles_ns,
        max(l.max_ns) / 1e3 AS max_us
    FROM stage_latency AS l
    FINAL
    ARRAY JOIN l.latency_ns AS ns, l.counts AS n
    WHERE l.event_minute >= {from:DateTime64(9, 'UTC')} AND l.event_minute < {to:DateTime64(9, 'UTC')}
    GROUP BY stage
)
ORDER BY stage
