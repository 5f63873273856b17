-- What questions begin with again and again, so that each reads no more than it must.

-- The trades and quotes that the engine took, each once: what came in, less what it refused, and less orders to halt.
-- A join, not "NOT IN": of `rejected` too it reads only the symbol and the times that are asked for.
CREATE OR REPLACE VIEW v_accepted_ticks AS
SELECT t.* EXCEPT (rank)
FROM ticks AS t
FINAL
LEFT ANTI JOIN rejected AS r
    ON t.symbol = r.symbol
    AND t.event_time = r.event_time
    AND t.epoch = r.epoch
    AND t.source_partition = r.source_partition
    AND t.source_offset = r.source_offset
    AND t.source_index = r.source_index
WHERE t.kind IN ('trade', 'quote')
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Bars of a symbol's trades, or of the mids of its quotes: v_tick_bars(symbol = 'AIG', kind = 'trade', seconds = 60,
-- from = ..., to = ...).
CREATE OR REPLACE VIEW v_tick_bars AS
SELECT
    time,
    argMin(price, place) AS open,
    max(price) AS high,
    min(price) AS low,
    argMax(price, place) AS close,
    sum(size) AS volume,
    sum(price * size) AS notional,
    count() AS ticks
FROM
(
    SELECT
        toStartOfInterval(t.event_time, toIntervalSecond({seconds:UInt32})) AS time,
        if(t.kind = 'trade', t.price, 0.5 * (t.bid + t.ask)) AS price,
        if(t.kind = 'trade', t.size, 0) AS size,
        (t.event_time, t.source_seq) AS place
    FROM v_accepted_ticks AS t
    WHERE t.symbol = {symbol:String}
        AND t.event_time >= {from:DateTime64(9, 'UTC')}
        AND t.event_time < {to:DateTime64(9, 'UTC')}
        AND t.kind = {kind:String}
)
WHERE isFinite(price)
GROUP BY time;

-- Scores are asked for by from_time, and outcomes are sorted by event_time.
ALTER TABLE outcomes ADD INDEX IF NOT EXISTS from_time_range from_time TYPE minmax GRANULARITY 1;

ALTER TABLE outcomes MATERIALIZE INDEX from_time_range;

-- As before, but the numbers of models and classes become text when they are counted, not before. The index may be used
-- without looking at more: an outcome that is written again has the same from_time.
CREATE OR REPLACE VIEW model_scores AS
SELECT
    leftPad(lower(hex(model_id)), 16, '0') AS model,
    * EXCEPT (model_id)
FROM
(
    SELECT
        o.model_id AS model_id,
        bitTest(o.flags, 0) AS shadow,
        o.symbol AS symbol,
        toStartOfHour(o.from_time) AS hour,
        count() AS outcomes,
        countIf(o.realised != 1) AS moved,
        avgIf(0.5 + 0.5 * sign(o.p_up - o.p_down) * (toInt8(o.realised) - 1), o.realised != 1) AS hit_rate,
        avg(o.log_loss) AS log_loss,
        avg(o.brier) AS brier,
        corr(toFloat64(o.expected_return_bps), toFloat64(o.return_bps)) AS ic,
        countIf(greatest(o.p_down, o.p_up) > o.p_flat AND o.p_down != o.p_up) AS positions,
        avgIf(
            sign(o.p_up - o.p_down) * o.return_bps - o.cost_bps,
            greatest(o.p_down, o.p_up) > o.p_flat AND o.p_down != o.p_up
        ) AS net_bps,
        countIf(NOT isNaN(o.fallback_log_loss)) AS fallback_outcomes,
        avgIf(
            0.5 + 0.5 * sign(o.fallback_up - o.fallback_down) * (toInt8(o.realised) - 1),
            o.realised != 1 AND NOT isNaN(o.fallback_log_loss)
        ) AS fallback_hit_rate,
        avgIf(o.fallback_log_loss, NOT isNaN(o.fallback_log_loss)) AS fallback_log_loss,
        avgIf(o.log_loss, NOT isNaN(o.fallback_log_loss)) AS log_loss_beside_fallback
    FROM outcomes AS o
    FINAL
    GROUP BY model_id, shadow, symbol, hour
)
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 0;
