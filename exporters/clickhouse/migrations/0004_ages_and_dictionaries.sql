-- What has been here for a week is read seldom and kept for ever: it is compressed harder.
-- Only codecs that name Default follow the age of a part.
ALTER TABLE predictions MODIFY SETTING default_compression_codec = 'ZSTD(1)';

ALTER TABLE predictions
    MODIFY COLUMN seq CODEC(Delta, Default),
    MODIFY COLUMN event_time CODEC(Delta, Default),
    MODIFY COLUMN ref_price CODEC(Gorilla, Default),
    MODIFY COLUMN horizon_ns CODEC(Default),
    MODIFY COLUMN p_down CODEC(Default),
    MODIFY COLUMN p_flat CODEC(Default),
    MODIFY COLUMN p_up CODEC(Default),
    MODIFY COLUMN expected_return_bps CODEC(Default),
    MODIFY COLUMN model_id CODEC(Default),
    MODIFY COLUMN flags CODEC(Default),
    MODIFY COLUMN source_partition CODEC(Default),
    MODIFY COLUMN source_offset CODEC(Delta, Default),
    MODIFY COLUMN source_index CODEC(Delta, Default),
    MODIFY COLUMN recv_time CODEC(Delta, Default),
    MODIFY COLUMN consumed_time CODEC(Delta, Default),
    MODIFY COLUMN features_time CODEC(Delta, Default),
    MODIFY COLUMN inferred_time CODEC(Delta, Default),
    MODIFY COLUMN published_time CODEC(Delta, Default),
    MODIFY COLUMN ingested_time CODEC(Delta, Default),
    MODIFY COLUMN newest_time CODEC(Delta, Default),
    MODIFY COLUMN trade_price CODEC(Gorilla, Default),
    MODIFY COLUMN trade_size CODEC(Gorilla, Default),
    MODIFY COLUMN tick_kind CODEC(Default),
    MODIFY COLUMN side CODEC(Default);

ALTER TABLE predictions MODIFY TTL toDateTime(ingested_time) + INTERVAL 7 DAY RECOMPRESS CODEC(ZSTD(6));

ALTER TABLE ticks MODIFY SETTING default_compression_codec = 'ZSTD(1)';

ALTER TABLE ticks
    MODIFY COLUMN event_time CODEC(Delta, Default),
    MODIFY COLUMN recv_time CODEC(Delta, Default),
    MODIFY COLUMN source_seq CODEC(Delta, Default),
    MODIFY COLUMN kind CODEC(Default),
    MODIFY COLUMN price CODEC(Gorilla, Default),
    MODIFY COLUMN size CODEC(Gorilla, Default),
    MODIFY COLUMN bid CODEC(Gorilla, Default),
    MODIFY COLUMN ask CODEC(Gorilla, Default),
    MODIFY COLUMN bid_size CODEC(Gorilla, Default),
    MODIFY COLUMN ask_size CODEC(Gorilla, Default),
    MODIFY COLUMN side CODEC(Default),
    MODIFY COLUMN stream_id CODEC(Default),
    MODIFY COLUMN source_partition CODEC(Default),
    MODIFY COLUMN source_offset CODEC(Delta, Default),
    MODIFY COLUMN source_index CODEC(Delta, Default),
    MODIFY COLUMN ingested_time CODEC(Delta, Default),
    MODIFY COLUMN rank CODEC(Delta, Default);

ALTER TABLE ticks MODIFY TTL toDateTime(ingested_time) + INTERVAL 7 DAY RECOMPRESS CODEC(ZSTD(6));

-- What people know of symbols, written by whoever knows it: INSERT INTO instrument_facts (symbol, name, venue) VALUES ...
CREATE TABLE IF NOT EXISTS instrument_facts
(
    symbol      String,
    name        String,
    venue       String,
    asset_class String,
    currency    String,
    tick_size   Float64 DEFAULT nan,
    lot_size    Float64 DEFAULT nan,
    noted_time  DateTime('UTC') DEFAULT now()
)
ENGINE = ReplacingMergeTree(noted_time)
ORDER BY symbol;

-- dictGet('instruments', 'venue', symbol): the facts, and what there is of a symbol.
CREATE OR REPLACE DICTIONARY instruments
(
    symbol      String,
    name        String,
    venue       String,
    asset_class String,
    currency    String,
    tick_size   Float64 DEFAULT nan,
    lot_size    Float64 DEFAULT nan,
    first_time  DateTime('UTC'),
    last_time   DateTime('UTC'),
    ticks       UInt64
)
PRIMARY KEY symbol
SOURCE(CLICKHOUSE(USER %(user)s PASSWORD %(password)s QUERY '
    SELECT symbol, name, venue, asset_class, currency, ifNull(tick_size, nan), ifNull(lot_size, nan),
        first_time, last_time, ticks
    FROM (SELECT toString(b.symbol) AS symbol, min(bar_time) AS first_time, max(bar_time) AS last_time, sum(ticks) AS ticks
          FROM current_database.bars_1h AS b FINAL GROUP BY b.symbol) AS seen
    FULL JOIN (SELECT * FROM current_database.instrument_facts FINAL) AS facts USING (symbol)'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 30 MAX 60);

-- dictGet('models', 'reason', model): since when a model serves, and why.
CREATE OR REPLACE DICTIONARY models
(
    model        String,
    served_time  DateTime64(9, 'UTC'),
    promotions   UInt64,
    reason       String
)
PRIMARY KEY model
SOURCE(CLICKHOUSE(USER %(user)s PASSWORD %(password)s QUERY '
    SELECT leftPad(lower(hex(model_id)), 16, ''0'') AS model, max(at_time) AS served_time, count() AS promotions,
        argMax(detail, at_time) AS reason
    FROM current_database.model_events FINAL WHERE kind = ''served'' GROUP BY model'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(MIN 30 MAX 60);
