-- Why this prediction
--
-- From which tick, features and model did a prediction come, and what became of it?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seq:UInt64} = 1: number of the prediction
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   part: prediction, tick, source, model, outcome or feature
--   name: of the value
--   value: as text
--   meaning: unit, and formula of a feature
-- Notes: features are there where workers publish them (features_every_ms); `tickloom explain` computes them
--     anew from the ticks
WITH
    p AS
    (
        SELECT *
        FROM v_predictions
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND seq = {seq:UInt64}
        ORDER BY published_time DESC
        LIMIT 1
    ),
    t AS
    (
        SELECT *
        FROM v_ticks
        WHERE symbol = {symbol:String}
            AND event_time IN (SELECT event_time FROM p)
            AND (epoch, source_partition, source_offset, source_index) IN
            (
                SELECT epoch, source_partition, source_offset, source_index FROM p
            )
    ),
    o AS
    (
        SELECT *
        FROM v_outcomes
        WHERE symbol = {symbol:String}
            AND event_time IN (SELECT event_time FROM p)
            AND (model, seq, epoch) IN (SELECT model, seq, epoch FROM p)
    ),
    f AS
    (
        SELECT
            names_id_hex,
            feature_hash_hex,
            arrayJoin(tupleToNameValuePairs(tuple(* EXCEPT (
                symbol, event_time, seq, ref_price, source_partition, source_offset, source_index, published_time,
                ingested_time, epoch, feature_hash_hex, names_id_hex
            )))) AS pair
        FROM v_features
        WHERE symbol = {symbol:String}
            AND event_time IN (SELECT event_time FROM p)
            AND (seq, epoch) IN (SELECT seq, epoch FROM p)
    )
SELECT item.1 AS part, item.2 AS name, item.3 AS value, item.4 AS meaning
FROM
(
    SELECT 1 AS place, arrayJoin([
        ('prediction', 'event_time', toString(event_time), 'of the tick, UTC'),
        ('prediction', 'ref_price', toString(ref_price), 'the price that the expected return refers to'),
        ('prediction', 'p_down', toString(p_down), 'probability'),
        ('prediction', 'p_flat', toString(p_flat), 'probability'),
        ('prediction', 'p_up', toString(p_up), 'probability'),
        ('prediction', 'expected_return_bps', toString(expected_return_bps), 'bps'),
        ('prediction', 'spread_bps', toString(spread_bps), 'bps, of the mid; nan: not known'),
        ('prediction', 'horizon_s', toString(horizon_ns / 1e9), 's'),
        ('prediction', 'warming', toString(warming), '1: the model had seen too few ticks'),
        ('prediction', 'feature_hash', feature_hash_hex, 'of the row of features'),
        ('prediction', 'published_time', toString(published_time), 'our clock, UTC'),
        ('prediction', 'tick_to_prediction_us', toString(tick_to_prediction_us), 'us'),
        ('source', 'partition', toString(source_partition), 'of the topic of ticks'),
        ('source', 'offset', toString(source_offset), 'of the block'),
        ('source', 'index', toString(source_index), 'of the tick in the block'),
        ('source', 'epoch', epoch, 'of the Kafka cluster'),
        ('model', 'model', model, 'id')
    ]) AS item
    FROM p
    UNION ALL
    SELECT 2 AS place, arrayJoin([
        ('tick', 'kind', toString(kind), ''),
        ('tick', 'price', toString(price), ''),
        ('tick', 'size', toString(size), ''),
        ('tick', 'side', toString(side), '1 bought, -1 sold, 0 not known'),
        ('tick', 'bid', toString(bid), ''),
        ('tick', 'ask', toString(ask), ''),
        ('tick', 'bid_size', toString(bid_size), ''),
        ('tick', 'ask_size', toString(ask_size), ''),
        ('tick', 'recv_time', toString(recv_time), 'when we had it, UTC'),
        ('source', 'stream_id', toString(stream_id), 'which run of which feed'),
        ('source', 'source_seq', toString(source_seq), 'number in that stream')
    ]) AS item
    FROM t
    UNION ALL
    SELECT 3 AS place, ('model', kind, toString(at_time), detail) AS item
    FROM v_model_events
    WHERE model IN (SELECT model FROM p)
    UNION ALL
    SELECT 4 AS place, arrayJoin([
        ('outcome', 'resolved_time', toString(resolved_time), 'of the tick that told, UTC'),
        ('outcome', 'later_price', toString(later_price), 'at the horizon'),
        ('outcome', 'return_bps', toString(return_bps), 'bps'),
        ('outcome', 'realised', realised_class, ''),
        ('outcome', 'log_loss', toString(log_loss), 'nats'),
        ('outcome', 'fallback_log_loss', toString(fallback_log_loss), 'nats')
    ]) AS item
    FROM o
    UNION ALL
    SELECT 5 + n.position AS place, ('feature', f.pair.1, toString(f.pair.2), concat(n.unit, ': ', n.formula)) AS item
    FROM f
    INNER JOIN v_feature_names AS n ON f.names_id_hex = n.names_id_hex AND f.pair.1 = n.name
)
ORDER BY place
SETTINGS enable_named_columns_in_function_tuple = 1
