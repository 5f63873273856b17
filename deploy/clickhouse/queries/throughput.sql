-- Predictions a second
--
-- How many predictions a second did the engine make, and how many in the busiest second?
--
-- Section: Engine
-- Parameters:
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: published from this time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: published before this time, UTC
-- Columns:
--   minute: when the minute began, by our clock
--   predictions: how many
--   per_s: over the whole minute
--   busiest_s: in its busiest second
--   symbols: how many ticked
SELECT
    toStartOfMinute(second) AS minute,
    sum(n) AS predictions,
    predictions / 60 AS per_s,
    max(n) AS busiest_s,
    uniqExactMerge(who) AS symbols
FROM
(
    SELECT
        toStartOfSecond(p.published_time) AS second,
        count() AS n,
        uniqExactState(p.symbol) AS who
    FROM v_predictions AS p
    WHERE p.published_time >= {from:DateTime64(9, 'UTC')} AND p.published_time < {to:DateTime64(9, 'UTC')}
    GROUP BY second
)
GROUP BY minute
ORDER BY minute
