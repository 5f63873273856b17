-- Predictions and what followed
--
-- What did the price do so many seconds after each prediction?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:Float64} = 10: look so far ahead
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   event_time: of the prediction
--   seq: its number
--   model: that made it
--   p_down: probability of a fall
--   p_up: of a rise
--   expected_return_bps: at the horizon of the model
--   ref_price: the price then
--   later_price: the last price at or before the moment looked at
--   return_bps: from one to the other, in bps
--   agrees: 1 if the likelier of up and down is what happened, 0 if the contrary; NaN if the price is the same
-- Notes: for any distance; at the horizon of the model, v_outcomes has it already
WITH
    prices AS
    (
        SELECT symbol, event_time, ref_price
        FROM v_predictions
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
        ORDER BY event_time DESC, seq DESC
        LIMIT 1 BY event_time
    ),
    predictions AS
    (
        SELECT
            *,
            event_time + toIntervalNanosecond(toInt64({seconds:Float64} * 1e9)) AS later_time
        FROM v_predictions
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
    )
SELECT
    p.event_time AS event_time,
    p.seq AS seq,
    p.model AS model,
    p.p_down AS p_down,
    p.p_up AS p_up,
    p.expected_return_bps AS expected_return_bps,
    p.ref_price AS ref_price,
    l.ref_price AS later_price,
    (later_price / p.ref_price - 1) * 1e4 AS return_bps,
    if(return_bps = 0 OR p.p_up = p.p_down, NaN, (return_bps > 0) = (p.p_up > p.p_down)) AS agrees
FROM predictions AS p
ASOF INNER JOIN prices AS l ON p.symbol = l.symbol AND p.later_time >= l.event_time
-- Known only where the recording goes on beyond it.
WHERE p.later_time < (SELECT max(event_time) FROM prices)
ORDER BY seq DESC
LIMIT {limit:UInt32}
