-- What the imbalance of the book foretells
--
-- Does the mid move to the side on which less stands?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 5: look so far ahead
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   imbalance_from: lower edge of (bid size - ask size) / (bid size + ask size), in fifths
--   quotes: quotes in this bucket whose later mid is known
--   microprice_gap_bps: mean of the size-weighted mid against the mid, in bps
--   mean_move_bps: mean of the move of the mid, in bps
--   up_share: share of mids that rose, of those that moved
-- Source: Stoikov, "The micro-price", Quantitative Finance 18(12), 2018
WITH
    quotes AS
    (
        SELECT
            symbol,
            event_time,
            source_offset * 4096 + source_index AS position,
            bid,
            ask,
            bid_size,
            ask_size,
            0.5 * (bid + ask) AS mid
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND bid_size + ask_size > 0
            AND isFinite(bid + ask)
    ),
    later AS
    (
        SELECT symbol, event_time, mid
        FROM quotes
        ORDER BY event_time DESC, position DESC
        LIMIT 1 BY event_time
    )
SELECT
    least(floor((q.bid_size - q.ask_size) / (q.bid_size + q.ask_size) * 5) / 5, 0.8) AS imbalance_from,
    count() AS quotes,
    avg(((q.bid * q.ask_size + q.ask * q.bid_size) / (q.bid_size + q.ask_size) / q.mid - 1) * 1e4)
        AS microprice_gap_bps,
    avg((l.mid / q.mid - 1) * 1e4) AS mean_move_bps,
    countIf(l.mid > q.mid) / countIf(l.mid != q.mid) AS up_share
FROM
(
    SELECT *, event_time + toIntervalSecond({seconds:UInt32}) AS later_time
    FROM quotes
) AS q
ASOF INNER JOIN later AS l ON q.symbol = l.symbol AND q.later_time >= l.event_time
WHERE q.later_time <= (SELECT max(event_time) FROM quotes)
GROUP BY imbalance_from
ORDER BY imbalance_from
