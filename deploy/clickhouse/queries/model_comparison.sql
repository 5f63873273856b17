-- Model A against model B
--
-- Of two models that predicted from the same ticks, which was better, and is it more than luck?
--
-- Section: Models
-- Parameters:
--   {a:String} = : id of one model
--   {b:String} = : id of the other
--   {symbols:String} = %: pattern of the symbols; % is any
--   {minutes:UInt32} = 5: length of the blocks whose means are taken as independent
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   predictions: of both models from the same tick
--   blocks: of time, within which differences are averaged first
--   log_loss_a: mean log loss of a, in nats
--   log_loss_b: of b
--   brier_a: mean Brier score of a
--   brier_b: of b
--   hit_rate_a: of the direction of moves
--   hit_rate_b: of b
--   difference: mean over blocks of log loss of a less that of b; below 0: a is better
--   standard_error: of it
--   t_value: difference / standard_error; beyond 2 or -2 it is hardly luck
-- Notes: blocks must be much longer than the horizon, or they are not independent; `tickloom models evaluate`
--     has the stricter test
-- Source: Diebold, Mariano, "Comparing predictive accuracy", J. Business and Economic Statistics 13(3), 1995,
--     here by means of blocks
WITH
    pairs AS
    (
        SELECT
            toStartOfInterval(a.from_time, toIntervalMinute({minutes:UInt32})) AS block,
            a.log_loss AS loss_a,
            b.log_loss AS loss_b,
            a.brier AS squares_a,
            b.brier AS squares_b,
            a.realised != 1 AS moved,
            0.5 + 0.5 * sign(a.p_up - a.p_down) * (toInt8(a.realised) - 1) AS hit_a,
            0.5 + 0.5 * sign(b.p_up - b.p_down) * (toInt8(a.realised) - 1) AS hit_b
        FROM outcomes AS a
        FINAL
        INNER JOIN
        (
            SELECT symbol, epoch, seq, event_time, log_loss, brier, p_up, p_down
            FROM outcomes
            FINAL
            WHERE symbol LIKE {symbols:String}
                AND event_time >= {from:DateTime64(9, 'UTC')}
                AND event_time < {to:DateTime64(9, 'UTC')}
                AND model_id = reinterpretAsUInt64(reverse(unhex({b:String})))
        ) AS b ON a.symbol = b.symbol AND a.epoch = b.epoch AND a.seq = b.seq AND a.event_time = b.event_time
        WHERE a.symbol LIKE {symbols:String}
            AND a.event_time >= {from:DateTime64(9, 'UTC')}
            AND a.event_time < {to:DateTime64(9, 'UTC')}
            AND a.model_id = reinterpretAsUInt64(reverse(unhex({a:String})))
    ),
    means AS
    (
        SELECT
            count() AS n,
            sum(toFloat64(loss_a)) AS loss_a,
            sum(toFloat64(loss_b)) AS loss_b,
            sum(toFloat64(squares_a)) AS squares_a,
            sum(toFloat64(squares_b)) AS squares_b,
            countIf(moved) AS moves,
            sumIf(hit_a, moved) AS hits_a,
            sumIf(hit_b, moved) AS hits_b,
            (loss_a - loss_b) / n AS lead
        FROM pairs AS p
        GROUP BY p.block
    )
SELECT
    sum(n) AS predictions,
    count() AS blocks,
    sum(m.loss_a) / predictions AS log_loss_a,
    sum(m.loss_b) / predictions AS log_loss_b,
    sum(m.squares_a) / predictions AS brier_a,
    sum(m.squares_b) / predictions AS brier_b,
    sum(m.hits_a) / sum(m.moves) AS hit_rate_a,
    sum(m.hits_b) / sum(m.moves) AS hit_rate_b,
    avg(m.lead) AS difference,
    stddevSampStable(m.lead) / sqrt(blocks) AS standard_error,
    difference / standard_error AS t_value
FROM means AS m
HAVING predictions > 0
-- The number of a model is in the key of the table, its text is not; and the rows of a model come in order.
SETTINGS join_algorithm = 'full_sorting_merge', do_not_merge_across_partitions_select_final = 1
