-- Challengers against the model in service
--
-- Would a challenger have done better than what was served, on the same ticks?
--
-- Section: Models
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   challenger: the model in shadow
--   served: the model whose predictions went out
--   predictions: of both from the same tick
--   challenger_log_loss: in nats
--   served_log_loss: in nats
--   better_share: share of the predictions on which the challenger lost less
--   challenger_hit_rate: of the direction of moves
--   served_hit_rate: likewise
--   challenger_net_bps: mean profit of a position net of costs, in bps; NaN without positions
--   served_net_bps: likewise
SELECT
    c.model AS challenger,
    s.model AS served,
    count() AS predictions,
    avg(toFloat64(c.log_loss)) AS challenger_log_loss,
    avg(toFloat64(s.log_loss)) AS served_log_loss,
    countIf(c.log_loss < s.log_loss) / predictions AS better_share,
    avgIf(0.5 + 0.5 * sign(c.p_up - c.p_down) * if(c.realised_class = 'up', 1, -1), c.realised_class != 'flat')
        AS challenger_hit_rate,
    avgIf(0.5 + 0.5 * sign(s.p_up - s.p_down) * if(s.realised_class = 'up', 1, -1), s.realised_class != 'flat')
        AS served_hit_rate,
    avgIf(sign(c.p_up - c.p_down) * toFloat64(c.return_bps) - c.cost_bps,
        greatest(c.p_down, c.p_up) > c.p_flat AND c.p_down != c.p_up) AS challenger_net_bps,
    avgIf(sign(s.p_up - s.p_down) * toFloat64(s.return_bps) - s.cost_bps,
        greatest(s.p_down, s.p_up) > s.p_flat AND s.p_down != s.p_up) AS served_net_bps
FROM v_outcomes AS s
INNER JOIN
(
    SELECT
        symbol,
        epoch,
        seq,
        event_time,
        model,
        log_loss,
        p_down,
        p_flat,
        p_up,
        realised_class,
        return_bps,
        cost_bps
    FROM v_outcomes
    WHERE symbol LIKE {symbols:String}
        AND event_time >= {from:DateTime64(9, 'UTC')}
        AND event_time < {to:DateTime64(9, 'UTC')}
        AND shadow
) AS c ON c.symbol = s.symbol AND c.epoch = s.epoch AND c.seq = s.seq AND c.event_time = s.event_time
WHERE s.symbol LIKE {symbols:String}
    AND s.event_time >= {from:DateTime64(9, 'UTC')}
    AND s.event_time < {to:DateTime64(9, 'UTC')}
    AND NOT s.shadow
    AND c.model != s.model
GROUP BY challenger, served
ORDER BY predictions DESC, challenger, served
-- More challengers than memory holds go to disk.
SETTINGS join_algorithm = 'grace_hash'
