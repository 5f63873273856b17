-- Returns by expected return
--
-- What did those predictions earn that expected most, and those that expected least?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   decile: 1 for the lowest expected returns, 10 for the highest
--   outcomes: how many
--   expected_bps: mean expected return, in bps
--   realised_bps: mean realised return, in bps
--   up_share: share that went up beyond the dead band
--   down_share: share that went down beyond it
-- Notes: where many expect the same, deciles are not equally full
WITH
    chosen AS
    (
        SELECT o.expected_return_bps AS expected, o.return_bps AS realised, o.realised_class AS class
        FROM v_outcomes AS o
        WHERE o.symbol = {symbol:String}
            AND o.event_time >= {from:DateTime64(9, 'UTC')}
            AND o.event_time < {to:DateTime64(9, 'UTC')}
            AND o.model LIKE {model:String}
    ),
    (SELECT quantilesExact(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)(expected) FROM chosen) AS edges
SELECT
    arrayCount(edge -> expected >= edge, edges) + 1 AS decile,
    count() AS outcomes,
    avg(toFloat64(expected)) AS expected_bps,
    avg(toFloat64(realised)) AS realised_bps,
    countIf(class = 'up') / outcomes AS up_share,
    countIf(class = 'down') / outcomes AS down_share
FROM chosen
GROUP BY decile
ORDER BY decile
