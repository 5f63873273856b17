-- What became of every tick
--
-- Was every tick predicted from, refused, or an order to halt?
--
-- Section: Data quality
-- Parameters:
--   {symbols:String} = %: pattern of the symbols; % is any
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   symbol: the symbol
--   ticks: that came in
--   predictions: made from them
--   rejected: refused with a reason
--   controls: orders to halt and to resume
--   unexplained: ticks less the other three: 0 once every way out has caught up
SELECT
    symbol,
    sum(n.1) AS ticks,
    sum(n.2) AS predictions,
    sum(n.3) AS rejected,
    sum(n.4) AS controls,
    toInt64(ticks) - toInt64(predictions + rejected + controls) AS unexplained
FROM
(
    SELECT t.symbol AS symbol, (count(), 0, 0, countIf(t.kind IN ('halt', 'resume'))) AS n
    FROM v_ticks AS t
    WHERE t.symbol LIKE {symbols:String}
        AND t.event_time >= {from:DateTime64(9, 'UTC')}
        AND t.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
    UNION ALL
    SELECT p.symbol AS symbol, (0, count(), 0, 0) AS n
    FROM v_predictions AS p
    WHERE p.symbol LIKE {symbols:String}
        AND p.event_time >= {from:DateTime64(9, 'UTC')}
        AND p.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
    UNION ALL
    SELECT r.symbol AS symbol, (0, 0, count(), 0) AS n
    FROM v_rejected AS r
    WHERE r.symbol LIKE {symbols:String}
        AND r.event_time >= {from:DateTime64(9, 'UTC')}
        AND r.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
)
GROUP BY symbol
ORDER BY abs(unexplained) DESC, symbol
