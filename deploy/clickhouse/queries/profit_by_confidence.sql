-- Profit by confidence
--
-- How sure must the model be before a position pays its costs?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   at_least: positions with at least this probability of their direction
--   positions: how many, of which up or down was the likeliest class
--   hit_share: share of them whose return has the right sign
--   gross_bps: mean return in their direction, in bps
--   net_bps: the same less the cost
--   total_net_bps: sum of that
SELECT
    arrayJoin([0.34, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]) AS at_least,
    countIf(p >= at_least) AS positions,
    countIf(p >= at_least AND gross > 0) / positions AS hit_share,
    avgIf(gross, p >= at_least) AS gross_bps,
    avgIf(gross - cost, p >= at_least) AS net_bps,
    sumIf(gross - cost, p >= at_least) AS total_net_bps
FROM
(
    SELECT
        greatest(o.p_down, o.p_up) AS p,
        sign(o.p_up - o.p_down) * toFloat64(o.return_bps) AS gross,
        toFloat64(o.cost_bps) AS cost
    FROM v_outcomes AS o
    WHERE o.symbol = {symbol:String}
        AND o.event_time >= {from:DateTime64(9, 'UTC')}
        AND o.event_time < {to:DateTime64(9, 'UTC')}
        AND o.model LIKE {model:String}
        AND greatest(o.p_down, o.p_up) > o.p_flat
        AND o.p_down != o.p_up
)
GROUP BY at_least
HAVING positions > 0
ORDER BY at_least
