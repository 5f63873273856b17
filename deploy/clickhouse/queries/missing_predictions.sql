-- Predictions that are missing
--
-- Are there gaps in the numbers of the predictions?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   epoch: the life of a Kafka cluster, within which a symbol is numbered without gaps
--   first_seq: lowest number
--   last_seq: highest
--   predictions: how many there are
--   missing: numbers between that are not there; must be 0
-- Notes: a tick that came out of order may fall out of the range of times, and seem to be missing
SELECT
    p.symbol AS symbol,
    p.epoch AS epoch,
    min(p.seq) AS first_seq,
    max(p.seq) AS last_seq,
    count() AS predictions,
    last_seq - first_seq + 1 - predictions AS missing
FROM v_predictions AS p
WHERE p.symbol LIKE {symbols:String}
    AND p.event_time >= {from:DateTime64(9, 'UTC')}
    AND p.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY symbol, epoch
ORDER BY missing DESC, symbol, epoch
