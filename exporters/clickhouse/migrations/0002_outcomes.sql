-- What came of each prediction, and what happened to models.
--
-- An outcome that is written twice has the same symbol, model, seq and event_time. After a restart some are told again
-- by somebody who does not know any more what the fallback had said then: the row that knows is kept.
CREATE TABLE IF NOT EXISTS outcomes
(
    symbol              LowCardinality(String),
    model_id            UInt64                  CODEC(ZSTD(1)),
    seq                 UInt64                  CODEC(Delta, ZSTD(1)),
    event_time          DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    from_time           DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    resolved_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    horizon_ns          Int64                   CODEC(ZSTD(1)),
    ref_price           Float64                 CODEC(Gorilla, ZSTD(1)),
    later_price         Float64                 CODEC(Gorilla, ZSTD(1)),
    return_bps          Float32                 CODEC(ZSTD(1)),
    expected_return_bps Float32                 CODEC(ZSTD(1)),
    p_down              Float32                 CODEC(ZSTD(1)),
    p_flat              Float32                 CODEC(ZSTD(1)),
    p_up                Float32                 CODEC(ZSTD(1)),
    fallback_down       Float32                 CODEC(ZSTD(1)),
    fallback_flat       Float32                 CODEC(ZSTD(1)),
    fallback_up         Float32                 CODEC(ZSTD(1)),
    log_loss            Float32                 CODEC(ZSTD(1)),
    brier               Float32                 CODEC(ZSTD(1)),
    fallback_log_loss   Float32                 CODEC(ZSTD(1)),
    cost_bps            Float32                 CODEC(ZSTD(1)),
    realised            UInt16                  CODEC(ZSTD(1)),
    flags               UInt16                  CODEC(ZSTD(1)),
    source_partition    Int32                   CODEC(ZSTD(1)),
    knows_fallback      UInt8                   CODEC(ZSTD(1)),
    epoch               LowCardinality(String)
)
ENGINE = ReplacingMergeTree(knows_fallback)
PARTITION BY toYYYYMMDD(event_time)
ORDER BY (symbol, model_id, event_time, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS model_events
(
    at_time     DateTime64(9, 'UTC'),
    event_time  DateTime64(9, 'UTC'),
    kind        Enum8('served' = 1, 'tripped' = 2, 'rolled back' = 3, 'rollback failed' = 4, 'drifted' = 5),
    model_id    UInt64,
    other_id    UInt64,
    value       Float64,
    predictions UInt64,
    detail      String,
    epoch       LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (at_time, kind, model_id)
SETTINGS non_replicated_deduplication_window = 1000;

-- What to ask: each outcome once, identities as text.
CREATE OR REPLACE VIEW v_outcomes AS
SELECT
    * EXCEPT (model_id, realised, flags, knows_fallback),
    leftPad(lower(hex(model_id)), 16, '0') AS model,
    ['down', 'flat', 'up'][realised + 1] AS realised_class,
    bitTest(flags, 0) AS shadow,
    bitTest(flags, 1) AS warming
FROM outcomes
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW v_model_events AS
SELECT
    * EXCEPT (model_id, other_id),
    leftPad(lower(hex(model_id)), 16, '0') AS model,
    leftPad(lower(hex(other_id)), 16, '0') AS other
FROM model_events
FINAL;

-- The scores of each model, symbol and hour; the formulas are those of models/live_scores.py. A rate of moves or of
-- positions is NaN in an hour that has none.
CREATE OR REPLACE VIEW model_scores AS
SELECT
    model,
    shadow,
    symbol,
    toStartOfHour(from_time) AS hour,
    count() AS outcomes,
    countIf(realised_class != 'flat') AS moved,
    avgIf(0.5 + 0.5 * sign(p_up - p_down) * if(realised_class = 'up', 1, -1), realised_class != 'flat') AS hit_rate,
    avg(o.log_loss) AS log_loss,
    avg(o.brier) AS brier,
    corr(toFloat64(o.expected_return_bps), toFloat64(o.return_bps)) AS ic,
    countIf(greatest(p_down, p_up) > p_flat AND p_down != p_up) AS positions,
    avgIf(sign(p_up - p_down) * o.return_bps - o.cost_bps, greatest(p_down, p_up) > p_flat AND p_down != p_up)
        AS net_bps,
    countIf(NOT isNaN(o.fallback_log_loss)) AS fallback_outcomes,
    avgIf(
        0.5 + 0.5 * sign(fallback_up - fallback_down) * if(realised_class = 'up', 1, -1),
        realised_class != 'flat' AND NOT isNaN(o.fallback_log_loss)
    ) AS fallback_hit_rate,
    avgIf(o.fallback_log_loss, NOT isNaN(o.fallback_log_loss)) AS fallback_log_loss,
    avgIf(o.log_loss, NOT isNaN(o.fallback_log_loss)) AS log_loss_beside_fallback
FROM v_outcomes AS o
GROUP BY model, shadow, symbol, hour;
