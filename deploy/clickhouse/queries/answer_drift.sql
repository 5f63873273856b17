-- Drift of the answers
--
-- Do the answers of the model look other than they did?
--
-- Section: Models
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {base_from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: start of the span to compare with, UTC
--   {base_to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: its end, UTC
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   answer: p_down, p_flat, p_up or expected_return_bps
--   base_predictions: in the span to compare with
--   predictions: in the range
--   psi: population stability index on tenths of the base span; above 0.25 is much
--   ks: largest distance of the two distribution functions at the edges of these tenths, 0 to 1
--   mean_before: in the base span
--   mean_now: in the range
-- Notes: a tenth that is empty counts as a thousandth; the engine measures drift from the training span all the
--     time (docs/outcomes.md)
-- Source: Siddiqi, "Credit Risk Scorecards", 2006
WITH
    base AS
    (
        SELECT arrayJoin(arrayZip(
            ['p_down', 'p_flat', 'p_up', 'expected_return_bps'],
            [p_down, p_flat, p_up, expected_return_bps]
        )) AS answer
        FROM v_predictions
        WHERE symbol = {symbol:String} AND model LIKE {model:String}
            AND event_time >= {base_from:DateTime64(9, 'UTC')} AND event_time < {base_to:DateTime64(9, 'UTC')}
    ),
    recent AS
    (
        SELECT arrayJoin(arrayZip(
            ['p_down', 'p_flat', 'p_up', 'expected_return_bps'],
            [p_down, p_flat, p_up, expected_return_bps]
        )) AS answer
        FROM v_predictions
        WHERE symbol = {symbol:String}
            AND model LIKE {model:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
    ),
    tenths AS
    (
        SELECT answer.1 AS name, quantilesExact(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)(answer.2) AS edges
        FROM base
        GROUP BY name
    ),
    counts AS
    (
        SELECT
            name,
            sumForEach(arrayMap(bin -> toFloat64(bin = place AND NOT is_new), range(10))) AS base_counts,
            sumForEach(arrayMap(bin -> toFloat64(bin = place AND is_new), range(10))) AS new_counts,
            avgIf(toFloat64(value), NOT is_new) AS mean_before,
            avgIf(toFloat64(value), is_new) AS mean_now
        FROM
        (
            SELECT
                a.answer.1 AS name,
                a.answer.2 AS value,
                a.is_new AS is_new,
                arrayCount(edge -> value >= edge, t.edges) AS place
            FROM (SELECT answer, 0 AS is_new FROM base UNION ALL SELECT answer, 1 AS is_new FROM recent) AS a
            INNER JOIN tenths AS t ON a.answer.1 = t.name
        )
        GROUP BY name
    )
SELECT
    name AS answer,
    toUInt64(arraySum(base_counts)) AS base_predictions,
    toUInt64(arraySum(new_counts)) AS predictions,
    arraySum((b, n) -> (greatest(n / predictions, 1e-3) - greatest(b / base_predictions, 1e-3))
        * log(greatest(n / predictions, 1e-3) / greatest(b / base_predictions, 1e-3)), base_counts, new_counts) AS psi,
    arrayMax(arrayMap((b, n) -> abs(b / base_predictions - n / predictions),
        arrayCumSum(base_counts), arrayCumSum(new_counts))) AS ks,
    mean_before,
    mean_now
FROM counts
WHERE predictions > 0
ORDER BY psi DESC
