-- Calibration table
--
-- When the model says 60 %, does it happen six times in ten?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   class: down, flat or up
--   p_from: lower edge of the bin of probabilities, in tenths
--   outcomes: predictions in the bin
--   mean_p: mean of what was said
--   happened: share that happened
--   low: lower end of Wilson's 95 % interval of that share, as if outcomes were independent
--   high: its upper end
-- Notes: outcomes that overlap are no independent evidence: the interval is the narrowest that it can be
-- Source: Wilson, "Probable inference", J. American Statistical Association 22, 1927
SELECT
    said.1 AS class,
    least(floor(said.2 * 10 + 1e-6), 9) / 10 AS p_from,
    count() AS outcomes,
    avg(toFloat64(said.2)) AS mean_p,
    countIf(o.realised_class = said.1) / outcomes AS happened,
    (happened + 1.9208 / outcomes - 1.96 * sqrt((happened * (1 - happened) + 0.9604 / outcomes) / outcomes))
        / (1 + 3.8416 / outcomes) AS low,
    (happened + 1.9208 / outcomes + 1.96 * sqrt((happened * (1 - happened) + 0.9604 / outcomes) / outcomes))
        / (1 + 3.8416 / outcomes) AS high
FROM v_outcomes AS o
ARRAY JOIN [('down', o.p_down), ('flat', o.p_flat), ('up', o.p_up)] AS said
WHERE o.symbol = {symbol:String}
    AND o.event_time >= {from:DateTime64(9, 'UTC')}
    AND o.event_time < {to:DateTime64(9, 'UTC')}
    AND o.model LIKE {model:String}
GROUP BY class, p_from
ORDER BY class, p_from
