-- Confusion by volatility
--
-- What was said and what happened, in quiet, usual and wild minutes?
--
-- Section: Predictions
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {model:String} = %: pattern of the model's id; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   regime: quiet, usual or wild: the third that the range of the minute before belongs to
--   said: the likeliest class
--   happened: what it was
--   outcomes: how many
--   share: of the outcomes of this regime of which this was said, 0 to 1
-- Notes: outcomes whose minute before had no bar are left out: how wild it was is not known
WITH
    minutes AS
    (
        SELECT
            b.bar_time + toIntervalMinute(1) AS minute,
            (b.high - b.low) / b.open AS height
        FROM v_bars_1m AS b
        WHERE b.symbol = {symbol:String}
            AND b.bar_time >= {from:DateTime64(9, 'UTC')}
            AND b.bar_time < {to:DateTime64(9, 'UTC')}
    ),
    (SELECT quantilesExactLow(0.3333, 0.6667)(height) FROM minutes) AS thirds
SELECT
    multiIf(m.height <= thirds[1], 'quiet', m.height <= thirds[2], 'usual', 'wild') AS regime,
    multiIf(o.p_flat >= greatest(o.p_down, o.p_up), 'flat', o.p_up > o.p_down, 'up', 'down') AS said,
    o.realised_class AS happened,
    count() AS outcomes,
    outcomes / sum(outcomes) OVER (PARTITION BY regime, said) AS share
FROM v_outcomes AS o
INNER JOIN minutes AS m ON toStartOfMinute(o.event_time) = m.minute
WHERE o.symbol = {symbol:String}
    AND o.event_time >= {from:DateTime64(9, 'UTC')}
    AND o.event_time < {to:DateTime64(9, 'UTC')}
    AND o.model LIKE {model:String}
GROUP BY regime, said, happened
ORDER BY regime, said, happened
