-- The spread of a prediction's symbol when it was made, in bps of the mid; NaN where it had no quote yet, and of rows from
-- before. Spreads repeat, which ZSTD sees without help (`python -m bench.codecs`: 0.09 bytes a row, 0.11 with Delta).
ALTER TABLE predictions
    ADD COLUMN IF NOT EXISTS spread_bps Float32 DEFAULT nan CODEC(Default) AFTER expected_return_bps;

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
    spread_bps,
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
    (toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(recv_time)) / 1e3 AS tick_to_prediction_us,
    tick_kind,
    trade_price,
    trade_size,
    side
FROM predictions
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
