-- Order-flow imbalance
--
-- Which side of the book grew, and did the price follow?
--
-- Section: Liquidity
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {seconds:UInt32} = 10: length of an interval
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   time: when the interval began
--   quotes: quotes in it
--   order_flow: sum of e_n: what was added to the bid and taken from the ask, less the contrary
--   depth: mean size at the touch, of both sides
--   imbalance: order_flow / depth
--   mid_return_bps: of the last mid of the interval against that of the last one with quotes
--   correlation: of imbalance and mid_return_bps over the whole range
-- Notes: quotes of one side only, and of venues that tell no sizes, are passed over
-- Source: Cont, Kukanov, Stoikov, "The price impact of order book events", J. Financial Econometrics 12(1), 2014
WITH
    quotes AS
    (
        SELECT
            event_time,
            source_offset * 4096 + source_index AS position,
            bid,
            ask,
            bid_size,
            ask_size,
            lagInFrame(bid) OVER run AS bid_before,
            lagInFrame(ask) OVER run AS ask_before,
            lagInFrame(bid_size) OVER run AS bid_size_before,
            lagInFrame(ask_size) OVER run AS ask_size_before,
            row_number() OVER run AS number
        FROM v_accepted_ticks
        WHERE symbol = {symbol:String}
            AND event_time >= {from:DateTime64(9, 'UTC')}
            AND event_time < {to:DateTime64(9, 'UTC')}
            AND kind = 'quote'
            AND isFinite(bid + ask + bid_size + ask_size)
        WINDOW run AS (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    flows AS
    (
        SELECT
            toStartOfInterval(event_time, toIntervalSecond({seconds:UInt32})) AS time,
            count() AS quotes,
            sum(if(
                number = 1,
                0,
                if(bid >= bid_before, bid_size, 0) - if(bid <= bid_before, bid_size_before, 0)
                    - if(ask <= ask_before, ask_size, 0) + if(ask >= ask_before, ask_size_before, 0)
            )) AS order_flow,
            avg(0.5 * (bid_size + ask_size)) AS depth,
            argMax(0.5 * (bid + ask), position) AS mid
        FROM quotes
        GROUP BY time
    ),
    moves AS
    (
        SELECT
            *,
            order_flow / depth AS imbalance,
            (mid / lagInFrame(mid, 1, mid) OVER
                (ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - 1) * 1e4 AS mid_return_bps
        FROM flows
    )
SELECT
    time,
    quotes,
    order_flow,
    depth,
    imbalance,
    mid_return_bps,
    corrStable(imbalance, mid_return_bps) OVER () AS correlation
FROM moves
ORDER BY time
