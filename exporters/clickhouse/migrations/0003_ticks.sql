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

-- Kafka clusters that we met, by number: a later one is higher.
CREATE TABLE IF NOT EXISTS epochs
(
    epoch      String,
    number     UInt32,
    since_time DateTime('UTC') DEFAULT now()
)
ENGINE = MergeTree
ORDER BY epoch;

-- Rows that their table would not take, with the reason, and the bytes of the record.
CREATE TABLE IF NOT EXISTS dead_letters
(
    at_time    DateTime('UTC'),
    table_name LowCardinality(String),
    reason     String,
    record     String COMMENT 'JSON; numbers that are none are NaN',
    raw        String COMMENT 'the record in hexadecimal digits',
    epoch      LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY at_time
TTL at_time + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 1000;

-- What a prediction follows: a trade of some size, or something else; unknown where its tick was not in Kafka any more.
-- newest_time is the newest event time of its symbol then; other than event_time only where the tick is out of order.
ALTER TABLE predictions
    ADD COLUMN IF NOT EXISTS newest_time DateTime64(9, 'UTC') DEFAULT event_time CODEC(Delta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS trade_price Float64 DEFAULT nan CODEC(Gorilla, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS trade_size Float64 DEFAULT nan CODEC(Gorilla, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tick_kind Enum8('unknown' = 0, 'trade' = 1, 'quote' = 2) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS side Int8 CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS newest_time_range newest_time TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS published_time_range published_time TYPE minmax GRANULARITY 1;

-- Bars of the prices that predictions refer to (of a trade its price, or the middle of the book), as the channels bar.1s
-- and bar.1m of the feed have them; volume, notional and vwap are of the trades among their ticks. Not views over what is inserted: exporters/clickhouse/derived.py computes them from the rows in
-- `predictions`, again and again. Of two results for a bar the one of more ticks stays.
CREATE TABLE IF NOT EXISTS bars_1s
(
    symbol   LowCardinality(String),
    bar_time DateTime('UTC')  CODEC(Delta, ZSTD(1)),
    open     Float64          CODEC(Gorilla, ZSTD(1)),
    high     Float64          CODEC(Gorilla, ZSTD(1)),
    low      Float64          CODEC(Gorilla, ZSTD(1)),
    close    Float64          CODEC(Gorilla, ZSTD(1)),
    volume   Float64          CODEC(ZSTD(1)),
    notional Float64          CODEC(ZSTD(1)),
    ticks    UInt64           CODEC(T64, ZSTD(1)),
    trades   UInt64           CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(ticks)
PARTITION BY toYYYYMM(bar_time)
ORDER BY (symbol, bar_time);

CREATE OR REPLACE VIEW v_bars_1s AS
SELECT *, notional / volume AS vwap
FROM bars_1s
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS bars_1m
(
    symbol   LowCardinality(String),
    bar_time DateTime('UTC')  CODEC(Delta, ZSTD(1)),
    open     Float64          CODEC(Gorilla, ZSTD(1)),
    high     Float64          CODEC(Gorilla, ZSTD(1)),
    low      Float64          CODEC(Gorilla, ZSTD(1)),
    close    Float64          CODEC(Gorilla, ZSTD(1)),
    volume   Float64          CODEC(ZSTD(1)),
    notional Float64          CODEC(ZSTD(1)),
    ticks    UInt64           CODEC(T64, ZSTD(1)),
    trades   UInt64           CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(ticks)
PARTITION BY toYYYYMM(bar_time)
ORDER BY (symbol, bar_time);

CREATE OR REPLACE VIEW v_bars_1m AS
SELECT *, notional / volume AS vwap
FROM bars_1m
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS bars_1h
(
    symbol   LowCardinality(String),
    bar_time DateTime('UTC')  CODEC(Delta, ZSTD(1)),
    open     Float64          CODEC(Gorilla, ZSTD(1)),
    high     Float64          CODEC(Gorilla, ZSTD(1)),
    low      Float64          CODEC(Gorilla, ZSTD(1)),
    close    Float64          CODEC(Gorilla, ZSTD(1)),
    volume   Float64          CODEC(ZSTD(1)),
    notional Float64          CODEC(ZSTD(1)),
    ticks    UInt64           CODEC(T64, ZSTD(1)),
    trades   UInt64           CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(ticks)
PARTITION BY toYear(bar_time)
ORDER BY (symbol, bar_time);

CREATE OR REPLACE VIEW v_bars_1h AS
SELECT *, notional / volume AS vwap
FROM bars_1h
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- How long stages took, as histograms; computed as bars are. v_stage_latency has their percentiles, to three digits.
CREATE TABLE IF NOT EXISTS stage_latency
(
    event_minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    minute       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    stage        LowCardinality(String),
    predictions  UInt64          CODEC(ZSTD(1)),
    latency_ns   Array(Int64)    CODEC(Delta, ZSTD(1)),
    counts       Array(UInt64)   CODEC(T64, ZSTD(1)),
    max_ns       Int64           CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(predictions)
PARTITION BY toYYYYMM(event_minute)
ORDER BY (event_minute, minute, stage);

CREATE OR REPLACE VIEW v_stage_latency AS
WITH quantilesExactWeighted(0.5, 0.9, 0.99, 0.999)(ns, n) AS percentiles_ns
SELECT
    minute,
    stage,
    sum(n) AS predictions,
    percentiles_ns[1] / 1e3 AS p50_us,
    percentiles_ns[2] / 1e3 AS p90_us,
    percentiles_ns[3] / 1e3 AS p99_us,
    percentiles_ns[4] / 1e3 AS p999_us,
    max(max_ns) / 1e3 AS max_us
FROM stage_latency
FINAL
ARRAY JOIN latency_ns AS ns, counts AS n
GROUP BY minute, stage;

-- As before, with the tick that a prediction follows.
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
    (toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(recv_time)) / 1e3 AS tick_to_prediction_us,
    tick_kind,
    trade_price,
    trade_size,
    side
FROM predictions
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
