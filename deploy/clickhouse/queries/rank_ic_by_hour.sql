-- Information coefficient by hour
--
-- Does the expected return order what happens?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   model: that predicted
--   hour: when the hour began
--   outcomes: how many
--   ic: Pearson's correlation of expected and realised return
--   rank_ic: Spearman's: Pearson's of the ranks, the mean rank where values are the same
-- Notes: many returns are the same, 0 above all; ClickHouse's rankCorr takes them as different, and is not used
-- Source: Grinold, Kahn, "Active Portfolio Management", 2000; Spearman 1904
WITH
    chosen AS
    (
        SELECT
            o.model AS model,
            toStartOfHour(o.event_time) AS hour,
            o.expected_return_bps AS expected,
            o.return_bps AS realised
        FROM v_outcomes AS o
        WHERE o.symbol = {symbol:String}
            AND o.event_time >= {from:DateTime64(9, 'UTC')}
            AND o.event_time < {to:DateTime64(9, 'UTC')}
            AND o.model LIKE {model:String}
    ),
    ranked AS
    (
        SELECT
            *,
            rank() OVER (PARTITION BY model, hour ORDER BY expected)
                + (count() OVER (PARTITION BY model, hour, expected) - 1) / 2 AS expected_rank,
            rank() OVER (PARTITION BY model, hour ORDER BY realised)
                + (count() OVER (PARTITION BY model, hour, realised) - 1) / 2 AS realised_rank
        FROM chosen
    )
SELECT
    model,
    hour,
    count() AS outcomes,
    corrStable(expected, realised) AS ic,
    corrStable(expected_rank, realised_rank) AS rank_ic
FROM ranked
GROUP BY model, hour
ORDER BY model, hour
