-- The clearest call of each bar, and what became of it
--
-- Where up or down was the likeliest class: which of an interval's calls was the surest, and was it right?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began; intervals begin at multiples of their length since 1970
--   seq: of the surest call
--   side: up or down
--   probability: of that side
--   expected_return_bps: until the horizon
--   return_bps: what it was
--   outcome: hit, miss, or flat where the price did not move beyond the model's dead band
--   calls: how many calls of the interval are settled
--   hits: how many of them were right
-- Notes: of the models in service only; the page marks them in the chart
WITH calls AS
(
    SELECT
        toStartOfInterval(o.event_time, toIntervalSecond({seconds:UInt32})) AS time,
        o.seq AS seq,
        if(o.p_up > o.p_down, 'up', 'down') AS side,
        greatest(o.p_up, o.p_down) AS probability,
        o.expected_return_bps AS expected_return_bps,
        o.return_bps AS return_bps,
        multiIf(o.realised_class = 'flat', 'flat', o.realised_class = side, 'hit', 'miss') AS outcome
    FROM v_outcomes AS o
    WHERE o.symbol = {symbol:String}
        AND NOT o.shadow
        AND greatest(o.p_up, o.p_down) > o.p_flat
        AND o.p_up != o.p_down
        AND o.event_time >= {from:DateTime64(9, 'UTC')}
        AND o.event_time < {to:DateTime64(9, 'UTC')}
)
SELECT
    c.time AS time,
    argMax(c.seq, c.probability) AS seq,
    argMax(c.side, c.probability) AS side,
    max(c.probability) AS probability,
    argMax(c.expected_return_bps, c.probability) AS expected_return_bps,
    argMax(c.return_bps, c.probability) AS return_bps,
    argMax(c.outcome, c.probability) AS outcome,
    count() AS calls,
    countIf(c.outcome = 'hit') AS hits
FROM calls AS c
GROUP BY time
ORDER BY time
