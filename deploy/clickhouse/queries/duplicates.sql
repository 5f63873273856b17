-- Rows that are stored twice
--
-- How many rows were written more than once, and are they shown once?
--
-- Section: Data quality
-- Parameters:
--   {symbol:String} = SIM.ALPHA: the symbol
--   {from:DateTime64(9, 'UTC')} = 1970-01-01 00:00:00: from this event time on, UTC
--   {to:DateTime64(9, 'UTC')} = 2200-01-01 00:00:00: before this event time, UTC
-- Columns:
--   what: predictions or outcomes
--   symbol: the symbol
--   stored: rows in the table, repeats that were not merged yet among them
--   shown: rows in the view
--   repeats: stored - shown
--   shown_twice: rows of the view that share symbol, model, seq and time with another; must be 0
-- Notes: a restarted exporter may write rows again; tables replace them when parts merge, views at once
SELECT
    p.what AS what,
    p.symbol AS symbol,
    stored,
    shown,
    stored - shown AS repeats,
    shown_twice
FROM
(
    SELECT 'predictions' AS what, t.symbol AS symbol, count() AS stored
    FROM predictions AS t
    WHERE t.symbol = {symbol:String}
        AND t.event_time >= {from:DateTime64(9, 'UTC')}
        AND t.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
    UNION ALL
    SELECT 'outcomes' AS what, t.symbol AS symbol, count() AS stored
    FROM outcomes AS t
    WHERE t.symbol = {symbol:String}
        AND t.event_time >= {from:DateTime64(9, 'UTC')}
        AND t.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
) AS p
INNER JOIN
(
    SELECT
        'predictions' AS what,
        v.symbol AS symbol,
        count() AS shown,
        shown - uniqExact(v.model, v.seq, v.event_time) AS shown_twice
    FROM v_predictions AS v
    WHERE v.symbol = {symbol:String}
        AND v.event_time >= {from:DateTime64(9, 'UTC')}
        AND v.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
    UNION ALL
    SELECT
        'outcomes' AS what,
        v.symbol AS symbol,
        count() AS shown,
        shown - uniqExact(v.model, v.seq, v.event_time) AS shown_twice
    FROM v_outcomes AS v
    WHERE v.symbol = {symbol:String}
        AND v.event_time >= {from:DateTime64(9, 'UTC')}
        AND v.event_time < {to:DateTime64(9, 'UTC')}
    GROUP BY symbol
) AS s ON p.what = s.what AND p.symbol = s.symbol
ORDER BY what, symbol
