-- Correlation of symbols
--
-- Which symbols move together?
--
-- Section: Prices
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {minutes:UInt32} = 1: length of a bar
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   one: a symbol
--   other: another
--   returns: bars in which both moved on from the bar before
--   correlation: of their log returns
WITH
    bars AS
    (
        SELECT
            b.symbol AS symbol,
            toStartOfInterval(b.bar_time, toIntervalMinute({minutes:UInt32})) AS time,
            argMax(b.close, b.bar_time) AS close
        FROM v_bars_1m AS b
        WHERE b.symbol LIKE {symbols:String}
            AND b.bar_time >= {from:DateTime64(9, 'UTC')}
            AND b.bar_time < {to:DateTime64(9, 'UTC')}
        GROUP BY symbol, time
    ),
    returns AS
    (
        SELECT
            symbol,
            time,
            log(close / lagInFrame(close) OVER run) AS change,
            lagInFrame(time) OVER run = time - toIntervalMinute({minutes:UInt32}) AS is_next
        FROM bars
        WINDOW run AS (PARTITION BY symbol ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    moves AS (SELECT symbol, time, change FROM returns WHERE is_next)
SELECT
    a.symbol AS one,
    b.symbol AS other,
    count() AS returns,
    corrStable(a.change, b.change) AS correlation
FROM moves AS a
INNER JOIN moves AS b ON a.time = b.time
WHERE a.symbol < b.symbol
GROUP BY one, other
HAVING returns > 2 AND isFinite(correlation)
ORDER BY abs(correlation) DESC, one, other
LIMIT {limit:UInt32}
