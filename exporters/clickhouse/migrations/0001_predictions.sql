-- Every prediction, with a time stamp for each stage that it went through.
--
-- A row that is written twice has the same symbol, event_time and seq, so it is replaced; and it lies in the same
-- partition, so FINAL need not compare partitions. event_time stands before seq because questions are about symbols and
-- times; within an epoch (a Kafka cluster's life) seq alone gives it. A replay of the same ticks on a wiped cluster
-- replaces its predictions: the last one written wins.
CREATE TABLE IF NOT EXISTS predictions
(
    symbol              LowCardinality(String),
    seq                 UInt64                  CODEC(Delta, ZSTD(1)),
    event_time          DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    ref_price           Float64                 CODEC(Gorilla, ZSTD(1)),
    horizon_ns          Int64                   CODEC(ZSTD(1)),
    p_down              Float32                 CODEC(ZSTD(1)),
    p_flat              Float32                 CODEC(ZSTD(1)),
    p_up                Float32                 CODEC(ZSTD(1)),
    expected_return_bps Float32                 CODEC(ZSTD(1)),
    model_id            UInt64                  CODEC(ZSTD(1)),
    feature_hash        UInt64                  CODEC(NONE),
    flags               UInt32                  CODEC(ZSTD(1)),
    source_partition    Int32                   CODEC(ZSTD(1)),
    source_offset       Int64                   CODEC(Delta, ZSTD(1)),
    source_index        UInt32                  CODEC(Delta, ZSTD(1)),
    recv_time           DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    consumed_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    features_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    inferred_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    published_time      DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    ingested_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    epoch               LowCardinality(String)
)
ENGINE = ReplacingMergeTree(ingested_time)
PARTITION BY toYYYYMMDD(event_time)
ORDER BY (symbol, event_time, seq)
-- How many insert tokens are remembered: a batch that is tried again is not even written.
SETTINGS non_replicated_deduplication_window = 10000;

-- What to ask: each prediction once, identities as text, latencies in microseconds.
CREATE OR REPLACE VIEW v_predictions AS
SELECT
    symbol,
    seq,
    event_time,
    ref_price,
    horizon_ns,
    p_down,
    p_flat,
    p_up,
    expected_return_bps,
    leftPad(lower(hex(model_id)), 16, '0') AS model,
    leftPad(lower(hex(feature_hash)), 16, '0') AS feature_hash_hex,
    bitTest(flags, 0) AS warming,
    source_partition,
    source_offset,
    source_index,
    recv_time,
    consumed_time,
    features_time,
    inferred_time,
    published_time,
    ingested_time,
    epoch,
    (toUnixTimestamp64Nano(consumed_time) - toUnixTimestamp64Nano(recv_time)) / 1e3 AS source_to_consumed_us,
    (toUnixTimestamp64Nano(features_time) - toUnixTimestamp64Nano(consumed_time)) / 1e3 AS features_us,
    (toUnixTimestamp64Nano(inferred_time) - toUnixTimestamp64Nano(features_time)) / 1e3 AS inference_us,
    (toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(inferred_time)) / 1e3 AS publish_us,
    (toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(recv_time)) / 1e3 AS tick_to_prediction_us
FROM predictions
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
