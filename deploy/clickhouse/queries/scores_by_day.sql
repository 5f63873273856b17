-- Scores of models by day
--
-- How good was each model, day by day, beside the fallback?
--
-- Section: Models
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   day: of the market
--   model: id
--   shadow: 1 for a challenger
--   outcomes: how many
--   hit_rate: of the direction of moves
--   log_loss: in nats, over three classes
--   brier: over three classes
--   positions: predictions of which up or down was the likeliest class
--   net_bps: mean profit of a position net of costs, in bps
--   lead_on_fallback: log loss of the fallback less that of the model, on the same outcomes; above 0 is better
--     than no model
SELECT
    toDate(s.hour) AS day,
    s.model AS model,
    s.shadow AS shadow,
    sum(s.outcomes) AS outcomes,
    sumIf(s.hit_rate * s.moved, s.moved > 0) / sum(s.moved) AS hit_rate,
    sum(s.log_loss * s.outcomes) / sum(s.outcomes) AS log_loss,
    sum(s.brier * s.outcomes) / sum(s.outcomes) AS brier,
    sum(s.positions) AS positions,
    sumIf(s.net_bps * s.positions, s.positions > 0) / sum(s.positions) AS net_bps,
    sumIf((s.fallback_log_loss - s.log_loss_beside_fallback) * s.fallback_outcomes, s.fallback_outcomes > 0)
        / sum(s.fallback_outcomes) AS lead_on_fallback
FROM model_scores AS s
WHERE s.symbol LIKE {symbols:String}
    AND s.model LIKE {model:String}
    AND s.hour >= {from:DateTime64(9, 'UTC')}
    AND s.hour < {to:DateTime64(9, 'UTC')}
GROUP BY day, model, shadow
ORDER BY day, model, shadow
