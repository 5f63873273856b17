-- Realised volatility
--
-- How much did the price move, hour by hour, and how much of it in jumps?
--
-- Section: Prices
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 60: distance of the returns
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   hour: when the hour began
--   returns: how many returns
--   realised_bps: square root of the sum of squared log returns, in bps
--   bipower_bps: the same by products of neighbours, which jumps do not enter, in bps
--   jump_share: share of the variance that is jumps, 0 to 1
--   parkinson_bps: from high and low alone, in bps
-- Source: Barndorff-Nielsen, Shephard, "Power and bipower variation with stochastic volatility and jumps", J.
--     Financial Econometrics 2(1), 2004; Parkinson, J. Business 53(1), 1980
WITH
    bars AS
    (
        SELECT
            toStartOfInterval(b.bar_time, toIntervalSecond({seconds:UInt32})) AS time,
            max(b.high) AS high,
            min(b.low) AS low,
            argMax(b.close, b.bar_time) AS close
        FROM v_bars_1s AS b
        WHERE b.symbol = {symbol:String}
            AND b.bar_time >= {from:DateTime64(9, 'UTC')}
            AND b.bar_time < {to:DateTime64(9, 'UTC')}
        GROUP BY time
    ),
    returns AS
    (
        SELECT
            toStartOfHour(time) AS hour,
            row_number() OVER run AS number,
            log(close / lagInFrame(close, 1, close) OVER run) * 1e4 AS return_bps,
            log(high / low) * 1e4 AS range_bps
        FROM bars
        WINDOW run AS (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    neighbours AS
    (
        SELECT
            *,
            lagInFrame(return_bps, 1, 0) OVER
                (PARTITION BY hour ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before_bps
        FROM returns
        WHERE number > 1
    )
SELECT
    hour,
    count() AS returns,
    sqrt(sum(return_bps * return_bps)) AS realised_bps,
    sqrt(pi() / 2 * sum(abs(return_bps * before_bps))) AS bipower_bps,
    if(realised_bps > 0, greatest(0, 1 - pow(bipower_bps / realised_bps, 2)), 0) AS jump_share,
    sqrt(sum(range_bps * range_bps) / (4 * log(2))) AS parkinson_bps
FROM neighbours
GROUP BY hour
ORDER BY hour
