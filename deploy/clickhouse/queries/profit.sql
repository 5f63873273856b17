-- Profit net of costs, and drawdown
--
-- What would one unit on every prediction have earned, and how deep did it fall in between?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {minutes:UInt32} = 60: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   positions: predictions of which up or down was the likeliest class
--   gross_bps: sum of their returns in that direction, in bps
--   cost_bps: sum of what in and out costs
--   net_bps: gross - cost
--   cumulative_bps: net since the start of the range
--   drawdown_bps: how far that is below its highest, or below 0 while it never was above
-- Notes: positions overlap, as there is one for each tick: it is the sum over units, not the account of a
--     trader; the drawdown is looked at between intervals
WITH
    intervals AS
    (
        SELECT
            toStartOfInterval(o.event_time, toIntervalMinute({minutes:UInt32})) AS time,
            count() AS positions,
            sum(sign(o.p_up - o.p_down) * toFloat64(o.return_bps)) AS gross_bps,
            sum(toFloat64(o.cost_bps)) AS cost_bps
        FROM v_outcomes AS o
        WHERE o.symbol = {symbol:String}
            AND o.event_time >= {from:DateTime64(9, 'UTC')}
            AND o.event_time < {to:DateTime64(9, 'UTC')}
            AND o.model LIKE {model:String}
            AND greatest(o.p_down, o.p_up) > o.p_flat
            AND o.p_down != o.p_up
        GROUP BY time
    ),
    sums AS
    (
        SELECT
            *,
            gross_bps - cost_bps AS net_bps,
            sum(net_bps) OVER (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS cumulative_bps
        FROM intervals
    )
SELECT
    time,
    positions,
    gross_bps,
    cost_bps,
    net_bps,
    cumulative_bps,
    greatest(0, max(cumulative_bps) OVER (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
        - cumulative_bps AS drawdown_bps
FROM sums
ORDER BY time
