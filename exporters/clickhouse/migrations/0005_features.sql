-- What the model saw: a row of features beside the prediction of the same symbol, event_time and seq, where workers
-- publish them (features_every_ms). A row that is written twice is the same, and is replaced.
--
-- A column for each feature: one of 80 is read several times as fast as out of an array, and a row takes 69 bytes instead
-- of 84. These are the names of the usual periods. With others the exporter adds columns and makes the view anew; NaN is
-- what a row does not have. names_id says which it has, and feature_names their order, over which feature_hash is made.
CREATE TABLE IF NOT EXISTS features
(
    symbol           LowCardinality(String),
    event_time       DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    seq              UInt64                  CODEC(Delta, ZSTD(1)),
    ref_price        Float64                 CODEC(Gorilla, ZSTD(1)),
    feature_hash     UInt64                  CODEC(NONE),
    names_id         UInt64                  CODEC(ZSTD(1)),
    source_partition Int32                   CODEC(ZSTD(1)),
    source_offset    Int64                   CODEC(Delta, ZSTD(1)),
    source_index     UInt32                  CODEC(Delta, ZSTD(1)),
    published_time   DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    ingested_time    DateTime64(9, 'UTC')    CODEC(Delta, ZSTD(1)),
    epoch            LowCardinality(String),
    `return_1_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `return_8_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `return_64_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `sma_32_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `ema_12_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `rsi_14` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `macd_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `macd_histogram_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bollinger_20_percent_b` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bollinger_20_width_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `volatility_64_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `spread_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `book_imbalance` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `microprice_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `order_flow_imbalance` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `trade_flow` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `tick_rate_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `since_trade_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `macd_signal_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `ema_26_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `channel_64_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `mid_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bid_age_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `ask_age_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `roc_1s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `sma_gap_1s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `vwap_gap_1s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `volatility_1s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `channel_1s_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `trade_flow_1s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `order_flow_1s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `tick_rate_1s_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `roc_10s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `sma_gap_10s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `vwap_gap_10s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `volatility_10s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `channel_10s_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `trade_flow_10s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `order_flow_10s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `tick_rate_10s_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `roc_60s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `sma_gap_60s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `vwap_gap_60s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `volatility_60s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `channel_60s_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `trade_flow_60s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `order_flow_60s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `tick_rate_60s_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `roc_300s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `sma_gap_300s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `vwap_gap_300s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `volatility_300s_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `channel_300s_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `trade_flow_300s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `order_flow_300s` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `tick_rate_300s_log` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_sma_20_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_ema_12_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_rsi_14` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_macd_12_26_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_macd_12_26_9_signal_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_macd_12_26_9_histogram_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_bollinger_20_percent_b` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_bollinger_20_width_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_atr_14_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_roc_10_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_channel_20_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_1s_volatility_20_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_sma_20_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_ema_12_gap_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_rsi_14` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_macd_12_26_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_macd_12_26_9_signal_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_macd_12_26_9_histogram_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_bollinger_20_percent_b` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_bollinger_20_width_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_atr_14_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_roc_10_bps` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_channel_20_position` Float32 DEFAULT nan CODEC(ZSTD(1)),
    `bar_60s_volatility_20_bps` Float32 DEFAULT nan CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(ingested_time)
PARTITION BY toYYYYMMDD(event_time)
ORDER BY (symbol, event_time, seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- What the columns are: of each names_id, in the order of a row.
CREATE TABLE IF NOT EXISTS feature_names
(
    names_id UInt64,
    position UInt16,
    name     String,
    unit     String,
    formula  String
)
ENGINE = ReplacingMergeTree
ORDER BY (names_id, position);

-- What to ask: each row once, identities as text.
CREATE OR REPLACE VIEW v_features AS
SELECT
    * EXCEPT (feature_hash, names_id),
    leftPad(lower(hex(feature_hash)), 16, '0') AS feature_hash_hex,
    leftPad(lower(hex(names_id)), 16, '0') AS names_id_hex
FROM features
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW v_feature_names AS
SELECT leftPad(lower(hex(names_id)), 16, '0') AS names_id_hex, position, name, unit, formula
FROM feature_names
FINAL;
