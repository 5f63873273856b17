-- Drift of the features
--
-- Which features look other than they did?
--
-- Section: Models
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {features:String} = %: pattern of the features; % is any
--   {every:UInt32} = 10: take one row in so many
--   {base_from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: start of the span to compare with, UTC
--   {base_to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: its end, UTC
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   feature: its name
--   base_rows: rows in the span to compare with
--   rows: rows in the range
--   psi: population stability index on tenths of the base span; above 0.25 is much
--   ks: largest distance of the two distribution functions at the edges of these tenths, 0 to 1
--   mean_before: in the base span
--   mean_now: in the range
-- Notes: a tenth that is empty counts as a thousandth; the engine measures drift from the training span all the
--     time (docs/outcomes.md)
-- Source: Siddiqi, "Credit Risk Scorecards", 2006
WITH
    pairs AS
    (
        SELECT
            arrayJoin(tupleToNameValuePairs(tuple(* EXCEPT (
                symbol, event_time, seq, ref_price, source_partition, source_offset, source_index, published_time,
                ingested_time, epoch, feature_hash_hex, names_id_hex
            )))) AS pair,
            event_time >= {from:DateTime64(9, 'UTC')} AND event_time < {to:DateTime64(9, 'UTC')} AS is_new,
            event_time >= {base_from:DateTime64(9, 'UTC')} AND event_time < {base_to:DateTime64(9, 'UTC')} AS is_base
        FROM v_features
        WHERE symbol = {symbol:String}
            AND event_time >= least({from:DateTime64(9, 'UTC')}, {base_from:DateTime64(9, 'UTC')})
            AND event_time < greatest({to:DateTime64(9, 'UTC')}, {base_to:DateTime64(9, 'UTC')})
            AND seq % {every:UInt32} = 0
    ),
    chosen AS
    (
        SELECT pair.1 AS name, pair.2 AS value, is_new, is_base
        FROM pairs
        WHERE name LIKE {features:String} AND isFinite(value)
    ),
    tenths AS
    (
        SELECT name, quantilesExact(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)(value) AS edges
        FROM chosen
        WHERE is_base
        GROUP BY name
    ),
    counts AS
    (
        SELECT
            name,
            arrayMap(bin -> toFloat64(countEqual(base_places, bin)), range(10)) AS base_counts,
            arrayMap(bin -> toFloat64(countEqual(new_places, bin)), range(10)) AS new_counts,
            mean_before,
            mean_now
        FROM
        (
            SELECT
                c.name AS name,
                groupArrayIf(toUInt8(arrayCount(edge -> c.value >= edge, t.edges)), c.is_base) AS base_places,
                groupArrayIf(toUInt8(arrayCount(edge -> c.value >= edge, t.edges)), c.is_new) AS new_places,
                avgIf(toFloat64(c.value), c.is_base) AS mean_before,
                avgIf(toFloat64(c.value), c.is_new) AS mean_now
            FROM chosen AS c
            INNER JOIN tenths AS t ON c.name = t.name
            GROUP BY name
        )
    )
SELECT
    name AS feature,
    toUInt64(arraySum(base_counts)) AS base_rows,
    toUInt64(arraySum(new_counts)) AS rows,
    arraySum((b, n) -> (greatest(n / rows, 1e-3) - greatest(b / base_rows, 1e-3))
        * log(greatest(n / rows, 1e-3) / greatest(b / base_rows, 1e-3)), base_counts, new_counts) AS psi,
    arrayMax(arrayMap((b, n) -> abs(b / base_rows - n / rows),
        arrayCumSum(base_counts), arrayCumSum(new_counts))) AS ks,
    mean_before,
    mean_now
FROM counts
WHERE rows > 0
ORDER BY psi DESC, feature
SETTINGS enable_named_columns_in_function_tuple = 1
