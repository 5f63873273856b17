-- Slowest predictions
--
-- Which predictions came late, and which stage kept them?
--
-- Section: Engine
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   symbol: the symbol
--   seq: number of the prediction
--   published_time: when it was out
--   tick_to_prediction_us: from receipt of the tick, in microseconds
--   stage: that took longest
--   stage_us: how long
--   share: of the whole, 0 to 1
--   source_partition: of the tick
--   source_offset: of its block
SELECT
    p.symbol AS symbol,
    p.seq AS seq,
    p.published_time AS published_time,
    p.tick_to_prediction_us AS tick_to_prediction_us,
    multiIf(
        stage_us = p.source_to_consumed_us, 'source_to_consumed',
        stage_us = p.features_us, 'features',
        stage_us = p.inference_us, 'inference',
        'publish'
    ) AS stage,
    greatest(p.source_to_consumed_us, p.features_us, p.inference_us, p.publish_us) AS stage_us,
    stage_us / p.tick_to_prediction_us AS share,
    p.source_partition AS source_partition,
    p.source_offset AS source_offset
FROM v_predictions AS p
WHERE p.symbol LIKE {symbols:String}
    AND p.event_time >= {from:DateTime64(9, 'UTC')}
    AND p.event_time < {to:DateTime64(9, 'UTC')}
ORDER BY tick_to_prediction_us DESC, symbol, seq
LIMIT {limit:UInt32}
