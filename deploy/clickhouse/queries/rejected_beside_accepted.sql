-- Rejected ticks beside the price that stood
--
-- How far from the price of that moment were the ticks that were refused?
--
-- Section: Data quality
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   event_time: of the refused tick
--   reason: why it was refused
--   price: of a trade; the mid of a quote
--   stood: the last price that the engine used before
--   distance_bps: of price from stood, in bps; NaN where there is no price
WITH stood AS
(
    SELECT symbol, event_time, ref_price
    FROM v_predictions
    WHERE symbol = {symbol:String}
        AND event_time >= {from:DateTime64(9, 'UTC')}
        AND event_time < {to:DateTime64(9, 'UTC')}
    ORDER BY event_time DESC, seq DESC
    LIMIT 1 BY event_time
)
SELECT
    r.event_time AS event_time,
    r.reason AS reason,
    if(r.kind = 'quote', 0.5 * (r.bid + r.ask), r.price) AS price,
    s.ref_price AS stood,
    (price / stood - 1) * 1e4 AS distance_bps
FROM v_rejected AS r
ASOF LEFT JOIN stood AS s ON r.symbol = s.symbol AND r.event_time > s.event_time
WHERE r.symbol = {symbol:String}
    AND r.event_time >= {from:DateTime64(9, 'UTC')}
    AND r.event_time < {to:DateTime64(9, 'UTC')}
ORDER BY abs(distance_bps) DESC, event_time, r.source_seq
LIMIT {limit:UInt32}
