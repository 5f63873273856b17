-- Lead and lag of two symbols
--
-- Does one symbol move before the other, and by how many seconds?
--
-- Section: Prices
-- Parameters:
--   {leader:String} = SIM.ALPHA: the symbol that may lead
--   {follower:String} = SIM.BRAVO: the symbol that may follow
--   {seconds:Int32} = 10: look so far back and ahead
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   lag_s: the follower's return so many seconds after the leader's; negative: before
--   returns: pairs of one-second returns
--   correlation: of them
WITH
    bars AS
    (
        SELECT b.symbol AS symbol, toUnixTimestamp(b.bar_time) AS second, b.close AS close
        FROM v_bars_1s AS b
        WHERE b.symbol IN ({leader:String}, {follower:String})
            AND b.bar_time >= {from:DateTime64(9, 'UTC')}
            AND b.bar_time < {to:DateTime64(9, 'UTC')}
    ),
    returns AS
    (
        SELECT
            symbol,
            second,
            log(close / lagInFrame(close) OVER run) AS change,
            lagInFrame(second) OVER run = second - 1 AS is_next
        FROM bars
        WINDOW run AS (PARTITION BY symbol ORDER BY second ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    led AS
    (
        SELECT
            arrayJoin(range(-{seconds:Int32}, {seconds:Int32} + 1)) AS lag_s,
            second + lag_s AS then,
            change
        FROM returns
        WHERE is_next AND symbol = {leader:String}
    ),
    followed AS (SELECT second AS then, change FROM returns WHERE is_next AND symbol = {follower:String})
SELECT
    lag_s,
    count() AS returns,
    corrStable(led.change, followed.change) AS correlation
FROM led
INNER JOIN followed ON led.then = followed.then
GROUP BY lag_s
ORDER BY lag_s
