-- Hit rate against baselines
--
-- Is the model better at the direction of moves than rules without a model?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   who: the model, the fallback (class frequencies by the last outcome), momentum (as the last known outcome
--     went), or always the more frequent direction (known only afterwards)
--   moves: outcomes beyond the dead band on which it had something to say
--   hit_rate: share of those whose direction it said; half a hit where both were as likely
--   log_loss: of all three classes, in nats, on the outcomes on which the fallback had something to say; NaN
--     where it says no probabilities
WITH
    chosen AS
    (
        SELECT
            o.symbol AS symbol,
            o.event_time AS event_time,
            toFloat64(o.p_up - o.p_down) AS model_lead,
            if(isNaN(o.fallback_log_loss), NULL, toFloat64(o.fallback_up - o.fallback_down)) AS fallback_lead,
            o.log_loss AS model_loss,
            o.fallback_log_loss AS fallback_loss,
            multiIf(o.realised_class = 'up', 1, o.realised_class = 'down', -1, 0) AS went
        FROM v_outcomes AS o
        WHERE o.symbol = {symbol:String}
            AND o.event_time >= {from:DateTime64(9, 'UTC')}
            AND o.event_time < {to:DateTime64(9, 'UTC')}
            AND o.model LIKE {model:String}
            AND NOT o.shadow
    ),
    known AS
    (
        SELECT o.symbol AS symbol, o.resolved_time AS resolved_time, o.return_bps AS last_bps
        FROM v_outcomes AS o
        WHERE o.symbol = {symbol:String}
            AND o.event_time >= {from:DateTime64(9, 'UTC')}
            AND o.event_time < {to:DateTime64(9, 'UTC')}
            AND o.model LIKE {model:String}
            AND NOT o.shadow
        ORDER BY o.resolved_time DESC, o.seq DESC
        LIMIT 1 BY o.resolved_time
    ),
    (SELECT if(countIf(went > 0) >= countIf(went < 0), 1., -1.) FROM chosen) AS majority,
    leads AS
    (
        SELECT
            c.*,
            if(k.symbol = '', NULL, toFloat64(sign(k.last_bps))) AS momentum_lead
        FROM chosen AS c
        ASOF LEFT JOIN known AS k ON c.symbol = k.symbol AND c.event_time > k.resolved_time
    )
SELECT
    lead.1 AS who,
    countIf(went != 0 AND lead.2 IS NOT NULL) AS moves,
    avgIf(0.5 + 0.5 * sign(assumeNotNull(lead.2)) * went, went != 0 AND lead.2 IS NOT NULL) AS hit_rate,
    avgIf(toFloat64(lead.3), isFinite(fallback_loss)) AS log_loss
FROM leads
ARRAY JOIN [
    ('model', toNullable(model_lead), model_loss),
    ('fallback', fallback_lead, fallback_loss),
    ('momentum', momentum_lead, toFloat32(NaN)),
    ('majority', toNullable(majority), toFloat32(NaN))
] AS lead
GROUP BY who
ORDER BY who
