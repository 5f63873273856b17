-- Buying and selling
--
-- How much was bought and how much sold, by who traded at once?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {minutes:UInt32} = 1: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   bought: size of trades whose aggressor bought
--   sold: of those whose aggressor sold
--   unknown: of those of which nothing is known
--   trade_flow: (bought - sold) / all, -1 to 1
--   cumulative: bought - sold since the start of the range
-- Notes: the side that the venue tells, else the quote test, else the tick test, else that of the trade before:
--     the engine's rule for trade_flow
-- Source: Lee, Ready, "Inferring trade direction from intraday data", J. Finance 46(2), 1991
WITH
    quotes AS
    (
        SELECT symbol, source_offset * 4096 + source_index AS position, 0.5 * (bid + ask) AS mid
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND isFinite(bid + ask)
    ),
    trades AS
    (
        SELECT
            symbol,
            event_time,
            source_offset * 4096 + source_index AS position,
            price,
            size,
            side,
            lagInFrame(price, 1, price) OVER
                (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS price_before
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'trade'
    ),
    tested AS
    (
        SELECT
            t.event_time AS event_time,
            t.position AS position,
            t.price AS price,
            t.size AS size,
            toInt8(sign(t.side)) AS told,
            if(q.mid > 0, toInt8(sign(t.price - q.mid)), 0) AS quote_test,
            toInt8(sign(t.price - t.price_before)) AS tick_test
        FROM trades AS t
        ASOF LEFT JOIN quotes AS q ON t.symbol = q.symbol AND t.position >= q.position
    ),
    signed AS
    (
        SELECT
            *,
            last_value(nullIf(multiIf(told != 0, told, quote_test != 0, quote_test, tick_test), 0)) IGNORE NULLS OVER
                (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS last_known,
            coalesce(last_known, 0) AS aggressor
        FROM tested
    ),
    volumes AS
    (
        SELECT
            toStartOfInterval(event_time, toIntervalMinute({minutes:UInt32})) AS time,
            sumIf(size, aggressor > 0) AS bought,
            sumIf(size, aggressor < 0) AS sold,
            sumIf(size, aggressor = 0) AS unknown
        FROM signed
        GROUP BY time
    )
SELECT
    time,
    bought,
    sold,
    unknown,
    (bought - sold) / (bought + sold + unknown) AS trade_flow,
    sum(bought - sold) OVER (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS cumulative
FROM volumes
ORDER BY time
