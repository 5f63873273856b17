-- Markout curve
--
-- How does the price move after a prediction, from 100 ms to 10 minutes?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {every:UInt32} = 10: take one prediction in so many
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   horizon_s: seconds after the prediction
--   predictions: whose price at that moment is known
--   markout_bps: mean of the return in the direction of the likelier of up and down, in bps
--   positions: of these, how many had up or down as the likeliest of all three
--   position_markout_bps: mean over these
--   hit_share: share of the moves that went in that direction
-- Notes: predictions close to each other share their future: the curve is less certain than their number
--     suggests
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
    predicted AS
    (
        SELECT
            symbol,
            arrayJoin([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600]) AS horizon_s,
            event_time + toIntervalNanosecond(toInt64(horizon_s * 1e9)) AS later_time,
            ref_price,
            sign(p_up - p_down) AS side,
            greatest(p_up, p_down) > p_flat AS is_position
        FROM v_predictions
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND model LIKE {model:String}
            AND seq % {every:UInt32} = 0
    ),
    marked AS
    (
        SELECT
            p.horizon_s AS horizon_s,
            p.side * (l.ref_price / p.ref_price - 1) * 1e4 AS markout,
            p.is_position AND p.side != 0 AS is_position
        FROM predicted AS p
        ASOF INNER JOIN prices AS l ON p.symbol = l.symbol AND p.later_time >= l.event_time
        WHERE p.later_time < (SELECT max(event_time) FROM prices)
    )
SELECT
    horizon_s,
    count() AS predictions,
    avg(markout) AS markout_bps,
    countIf(is_position) AS positions,
    avgIf(markout, is_position) AS position_markout_bps,
    countIf(markout > 0) / countIf(markout != 0) AS hit_share
FROM marked
GROUP BY horizon_s
ORDER BY horizon_s
