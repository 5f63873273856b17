-- Latest predictions
--
-- What does the model say of each symbol now?
--
-- Section: Predictions
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {minutes:UInt32} = 60: only symbols that ticked so many minutes before the newest tick of all, or later
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   symbol: the symbol
--   event_time: of the tick that the prediction follows
--   ref_price: the price that it refers to
--   p_down: probability of a fall beyond the dead band
--   p_flat: of neither
--   p_up: of a rise
--   expected_return_bps: at the horizon, in bps
--   horizon_s: seconds
--   model: that said so
--   warming: 1 while the model has seen too few ticks of the symbol
WITH (SELECT max(event_time) FROM predictions) AS newest
SELECT
    p.symbol AS symbol,
    p.event_time AS event_time,
    p.ref_price AS ref_price,
    p.p_down AS p_down,
    p.p_flat AS p_flat,
    p.p_up AS p_up,
    p.expected_return_bps AS expected_return_bps,
    p.horizon_ns / 1e9 AS horizon_s,
    p.model AS model,
    p.warming AS warming
FROM v_predictions AS p
WHERE p.symbol LIKE {symbols:String} AND p.event_time >= newest - toIntervalMinute({minutes:UInt32})
ORDER BY p.event_time DESC, p.seq DESC
LIMIT 1 BY p.symbol
LIMIT {limit:UInt32}
