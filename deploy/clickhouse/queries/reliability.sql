-- Reliability, resolution, uncertainty
--
-- How much of the Brier score is miscalibration, and how much does the model tell apart?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   class: down, flat or up
--   outcomes: how many
--   base_rate: how often it happened
--   brier: mean squared error of the probability, of this class
--   reliability: mean squared distance of what was said from what happened, by tenths; 0 is best
--   resolution: mean squared distance of what happened in a bin from the base rate; more is better
--   uncertainty: base_rate x (1 - base_rate)
--   calibration_error: mean distance of what was said from what happened, by tenths
--   skill: 1 - brier / uncertainty: what is better than always saying the base rate
-- Notes: brier is reliability - resolution + uncertainty, but for what differs within a tenth
-- Source: Murphy, "A new vector partition of the probability score", J. Applied Meteorology 12, 1973
WITH bins AS
(
    SELECT
        said.1 AS class,
        least(floor(said.2 * 10 + 1e-6), 9) AS bin,
        count() AS n,
        avg(toFloat64(said.2)) AS mean_p,
        countIf(o.realised_class = said.1) / n AS happened,
        sum(pow(toFloat64(said.2) - (o.realised_class = said.1), 2)) AS squares
    FROM v_outcomes AS o
    ARRAY JOIN [('down', o.p_down), ('flat', o.p_flat), ('up', o.p_up)] AS said
    WHERE o.symbol = {symbol:String}
        AND o.event_time >= {from:DateTime64(9, 'UTC')}
        AND o.event_time < {to:DateTime64(9, 'UTC')}
        AND o.model LIKE {model:String}
    GROUP BY class, bin
)
SELECT
    b.class AS class,
    sum(b.n) AS outcomes,
    sum(b.n * b.happened) / outcomes AS base_rate,
    sum(b.squares) / outcomes AS brier,
    sum(b.n * pow(b.mean_p - b.happened, 2)) / outcomes AS reliability,
    sum(b.n * pow(b.happened, 2)) / outcomes - pow(base_rate, 2) AS resolution,
    base_rate * (1 - base_rate) AS uncertainty,
    sum(b.n * abs(b.mean_p - b.happened)) / outcomes AS calibration_error,
    1 - brier / uncertainty AS skill
FROM bins AS b
GROUP BY class
ORDER BY class
