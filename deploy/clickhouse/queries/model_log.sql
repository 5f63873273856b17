-- What happened to models
--
-- When was which model put into service, tripped, or rolled back, and why?
--
-- Section: Models
-- Parameters:
--   {limit:UInt32} = 20: rows at the most
-- Columns:
--   at_time: by our clock
--   event_time: by the market's; 1970 where it has none
--   kind: served, tripped, rolled back, rollback failed, drifted
--   model: it happened to this one
--   other: what it was compared with or replaced by
--   value: of the statistic
--   predictions: outcomes of the model known by then
--   detail: in words
--   until_next_s: seconds until the next event of this kind; NaN for the last
SELECT
    e.at_time AS at_time,
    e.event_time AS event_time,
    e.kind AS kind,
    e.model AS model,
    e.other AS other,
    e.value AS value,
    e.predictions AS predictions,
    e.detail AS detail,
    if(
        row_number() OVER (PARTITION BY e.kind ORDER BY e.at_time DESC) = 1,
        NaN,
        (toUnixTimestamp64Nano(leadInFrame(e.at_time) OVER
            (PARTITION BY e.kind ORDER BY e.at_time ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING))
            - toUnixTimestamp64Nano(e.at_time)) / 1e9
    ) AS until_next_s
FROM v_model_events AS e
ORDER BY at_time DESC, kind, model
LIMIT {limit:UInt32}
