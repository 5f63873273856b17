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
--   rank_ic: Spearman's
-- Source: Grinold, Kahn, "Active Portfolio Management", 2000; Spearman 1904
SELECT
    o.model AS model,
    toStartOfHour(o.event_time) AS hour,
    count() AS outcomes,
    corrStable(o.expected_return_bps, o.return_bps) AS ic,
    rankCorr(o.expected_return_bps, o.return_bps) AS rank_ic
FROM v_outcomes AS o
WHERE o.symbol = {symbol:String}
    AND o.event_time >= {from:DateTime64(9, 'UTC')}
    AND o.event_time < {to:DateTime64(9, 'UTC')}
    AND o.model LIKE {model:String}
GROUP BY model, hour
ORDER BY model, hour
