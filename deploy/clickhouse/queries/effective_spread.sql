-- Effective and realised spread
--
-- What did those pay who traded at once, and how much of it was left after the price had moved?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 5: how much later the mid is looked at again
--   {minutes:UInt32} = 30: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   trades: trades with a quote before them, and a mid so much later
--   effective_bps: 2 x distance of the price from the mid before, in bps, weighted by size
--   realised_bps: 2 x side x (price - later mid) / mid, likewise: what the maker kept
--   impact_bps: effective - realised: what the mid moved with the trade
-- Notes: a block has at most 4,096 ticks, so that offset and index make one position in the order of arrival
-- Source: Huang, Stoll, "Dealer versus auction markets", J. Financial Economics 41(3), 1996
WITH
    quotes AS
    (
        SELECT symbol, event_time, source_offset * 4096 + source_index AS position, 0.5 * (bid + ask) AS mid
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND isFinite(bid + ask)
    ),
    trades AS
    (
        SELECT symbol, event_time, source_offset * 4096 + source_index AS position, price, size, side
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'trade'
            AND size > 0
    ),
    before AS
    (
        SELECT
            t.symbol AS symbol,
            t.event_time AS event_time,
            t.event_time + toIntervalSecond({seconds:UInt32}) AS later_time,
            t.price AS price,
            t.size AS size,
            q.mid AS mid,
            -- Who is not told to have bought or sold did what the side of the mid says.
            if(t.side != 0, sign(t.side), sign(t.price - q.mid)) AS aggressor
        FROM trades AS t
        ASOF INNER JOIN quotes AS q ON t.symbol = q.symbol AND t.position >= q.position
    ),
    -- Of quotes of one time the last counts.
    later AS
    (
        SELECT symbol, event_time, mid
        FROM quotes
        ORDER BY event_time DESC, position DESC
        LIMIT 1 BY event_time
    )
SELECT
    toStartOfInterval(b.event_time, toIntervalMinute({minutes:UInt32})) AS time,
    count() AS trades,
    sum(b.size * 2 * abs(b.price - b.mid) / b.mid) / sum(b.size) * 1e4 AS effective_bps,
    sum(b.size * 2 * b.aggressor * (b.price - l.mid) / b.mid) / sum(b.size) * 1e4 AS realised_bps,
    sum(b.size * 2 * b.aggressor * (l.mid - b.mid) / b.mid) / sum(b.size) * 1e4 AS impact_bps
FROM before AS b
ASOF INNER JOIN later AS l ON b.symbol = l.symbol AND b.later_time >= l.event_time
WHERE b.later_time <= (SELECT max(event_time) FROM quotes)
GROUP BY time
ORDER BY time
