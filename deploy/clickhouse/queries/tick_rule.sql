-- Trade direction by quote test and tick test
--
-- How often do the rules that guess who was the aggressor decide, and how often are they right?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   rule: quote test (above or below the mid), tick test (above or below the last trade), or Lee and Ready (the
--     first, else the second, else as before)
--   trades: how many trades
--   decided_share: share that the rule says something on
--   buy_share: share of buys among these
--   told: trades whose aggressor the venue tells and on which the rule says something
--   right_share: share of those on which it says the same; NaN where none is told
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
            last_value(nullIf(if(quote_test != 0, quote_test, tick_test), 0)) IGNORE NULLS OVER
                (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS last_test,
            coalesce(last_test, 0) AS lee_ready
        FROM tested
    )
SELECT
    test.1 AS rule,
    count() AS trades,
    countIf(test.2 != 0) / count() AS decided_share,
    countIf(test.2 > 0) / countIf(test.2 != 0) AS buy_share,
    countIf(s.told != 0 AND test.2 != 0) AS told,
    countIf(s.told != 0 AND test.2 = s.told) / countIf(s.told != 0 AND test.2 != 0) AS right_share
FROM signed AS s
ARRAY JOIN [('quote test', quote_test), ('tick test', tick_test), ('Lee and Ready', lee_ready)] AS test
GROUP BY rule
ORDER BY rule
