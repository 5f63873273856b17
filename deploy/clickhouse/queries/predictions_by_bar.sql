-- What the model said at the end of each bar
--
-- Which way did the newest prediction of each interval lean?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began; intervals begin at multiples of their length since 1970
--   p_down: probability that the price is lower at the horizon
--   p_flat: that it is about the same
--   p_up: that it is higher
--   expected_return_bps: until the horizon
--   predictions: how many there were
-- Notes: the page draws them below the chart
SELECT
    toStartOfInterval(p.event_time, toIntervalSecond({seconds:UInt32})) AS time,
    argMax(p.p_down, p.seq) AS p_down,
    argMax(p.p_flat, p.seq) AS p_flat,
    argMax(p.p_up, p.seq) AS p_up,
    argMax(p.expected_return_bps, p.seq) AS expected_return_bps,
    count() AS predictions
FROM v_predictions AS p
WHERE p.symbol = {symbol:String}
    AND p.event_time >= {from:DateTime64(9, 'UTC')}
    AND p.event_time < {to:DateTime64(9, 'UTC')}
GROUP BY time
ORDER BY time
