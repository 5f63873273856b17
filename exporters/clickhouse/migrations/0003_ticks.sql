-- Every tick of the topic `ticks`, used or not, once: a copy that a source sent again is the same in all that it tells
-- but recv_time, and is replaced. Of copies the first one stays (the one that the engine takes): it has the highest rank.
CREATE TABLE IF NOT EXISTS ticks
(
    symbol           LowCardinality(String),
    event_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    recv_time        DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    source_seq       UInt64                  CODEC(Delta, ZSTD(1)),
    kind             Enum8('unknown' = 0, 'trade' = 1, 'quote' = 2, 'halt' = 3, 'resume' = 4) CODEC(ZSTD(1)),
    price            Float64                 CODEC(Gorilla, ZSTD(1)),
    size             Float64                 CODEC(Gorilla, ZSTD(1)),
    bid              Float64                 CODEC(Gorilla, ZSTD(1)),
    ask              Float64                 CODEC(Gorilla, ZSTD(1)),
    bid_size         Float64                 CODEC(Gorilla, ZSTD(1)),
    ask_size         Float64                 CODEC(Gorilla, ZSTD(1)),
    side             Int8                    CODEC(ZSTD(1)),
    stream_id        UInt32                  CODEC(ZSTD(1)),
    source_partition Int32                   CODEC(ZSTD(1)),
    source_offset    Int64                   CODEC(Delta, ZSTD(1)),
    source_index     UInt32                  CODEC(Delta, ZSTD(1)),
    ingested_time    DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    rank             UInt64                  CODEC(Delta, ZSTD(1)),
    epoch            LowCardinality(String)
)
ENGINE = ReplacingMergeTree(rank)
PARTITION BY toYYYYMMDD(event_time)
PRIMARY KEY (symbol, event_time)
ORDER BY (symbol, event_time, stream_id, source_seq, kind, price, size, bid, ask, bid_size, ask_size, side)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE VIEW v_ticks AS
SELECT * EXCEPT (rank)
FROM ticks
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Ticks that the engine refused. One is told again after a crash, with the same place.
CREATE TABLE IF NOT EXISTS rejected
(
    symbol           LowCardinality(String),
    event_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    recv_time        DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    source_seq       UInt64                  CODEC(Delta, ZSTD(1)),
    kind             Enum8('unknown' = 0, 'trade' = 1, 'quote' = 2, 'halt' = 3, 'resume' = 4) CODEC(ZSTD(1)),
    price            Float64                 CODEC(ZSTD(1)),
    size             Float64                 CODEC(ZSTD(1)),
    bid              Float64                 CODEC(ZSTD(1)),
    ask              Float64                 CODEC(ZSTD(1)),
    bid_size         Float64                 CODEC(ZSTD(1)),
    ask_size         Float64                 CODEC(ZSTD(1)),
    side             Int8                    CODEC(ZSTD(1)),
    stream_id        UInt32                  CODEC(ZSTD(1)),
    source_partition Int32                   CODEC(ZSTD(1)),
    source_offset    Int64                   CODEC(Delta, ZSTD(1)),
    source_index     UInt32                  CODEC(Delta, ZSTD(1)),
    ingested_time    DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    reason           Enum8(
        'unknown' = 0, 'not_finite' = 1, 'not_positive' = 2, 'negative_size' = 3, 'crossed' = 4, 'late' = 5, 'future' = 6,
        'bad_kind' = 7, 'bad_symbol' = 8, 'missing_side' = 9, 'too_many_symbols' = 10, 'out_of_range' = 11,
        'outlier' = 12, 'halted' = 13, 'unknown_symbol' = 14, 'wrong_partition' = 15, 'bad_sequence' = 16
    ) CODEC(ZSTD(1)),
    epoch            LowCardinality(String)
)
ENGINE = ReplacingMergeTree(ingested_time)
PARTITION BY toYYYYMM(recv_time)
ORDER BY (symbol, event_time, source_partition, source_offset, source_index, epoch, recv_time)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE VIEW v_rejected AS
SELECT * EXCEPT (reason), toString(reason) AS reason
FROM rejected
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW v_bars_1s AS
SELECT
    symbol,
    toDateTime(event_time) AS bar_time,
    argMin(ref_price, seq) AS open,
    max(ref_price) AS high,
    min(ref_price) AS low,
    argMax(ref_price, seq) AS close,
    0. AS volume,
    0. AS notional,
    count() AS ticks,
    toUInt64(0) AS trades,
    nan AS vwap
FROM v_predictions
GROUP BY symbol, bar_time;

CREATE OR REPLACE VIEW v_bars_1m AS
SELECT
    symbol,
    toStartOfMinute(event_time) AS bar_time,
    argMin(ref_price, seq) AS open,
    max(ref_price) AS high,
    min(ref_price) AS low,
    argMax(ref_price, seq) AS close,
    0. AS volume,
    0. AS notional,
    count() AS ticks,
    toUInt64(0) AS trades,
    nan AS vwap
FROM v_predictions
GROUP BY symbol, bar_time;

CREATE OR REPLACE VIEW v_bars_1h AS
SELECT
    symbol,
    toStartOfHour(event_time) AS bar_time,
    argMin(ref_price, seq) AS open,
    max(ref_price) AS high,
    min(ref_price) AS low,
    argMax(ref_price, seq) AS close,
    0. AS volume,
    0. AS notional,
    count() AS ticks,
    toUInt64(0) AS trades,
    nan AS vwap
FROM v_predictions
GROUP BY symbol, bar_time;

CREATE OR REPLACE VIEW v_stage_latency AS
SELECT
    toStartOfMinute(published_time) AS minute,
    pair.1 AS stage,
    count() AS predictions,
    quantileExact(0.5)(pair.2) AS p50_us,
    quantileExact(0.9)(pair.2) AS p90_us,
    quantileExact(0.99)(pair.2) AS p99_us,
    quantileExact(0.999)(pair.2) AS p999_us,
    max(pair.2) AS max_us
FROM
(
    SELECT
        published_time,
        arrayJoin([
            ('source_to_consumed', source_to_consumed_us),
            ('features', features_us),
            ('inference', inference_us),
            ('publish', publish_us),
            ('tick_to_prediction', tick_to_prediction_us)
        ]) AS pair
    FROM v_predictions
)
GROUP BY minute, stage;
