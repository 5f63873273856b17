"""The dashboards: who looks, and what they ask. deploy/grafana/make.py writes them."""

from make import DOWN, FLAT, UP, dashboard, panel, stat

RATE = "[$__rate_interval]"


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """Return the query of a quantile of a histogram of Prometheus."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}{RATE})))"


STAGES = "tickloom_stage_latency_seconds"
TOTAL = '{job="gateway", stage="total"}'
SHARES = (0.5, 0.99, 0.999)

TRADING = dashboard(
    "trading",
    "trading",
    {
        "Now": [
            stat("Predictions a second", f"sum(rate(tickloom_predictions_total{RATE}))", "ops"),
            stat("Tick to feed, p50", quantile(0.5, STAGES, where=TOTAL), "s"),
            stat("Tick to feed, p99", quantile(0.99, STAGES, where=TOTAL), "s"),
            stat("Symbols", "sum(tickloom_lane_symbols)"),
            stat("Hit rate, all symbols", 'max(tickloom_model_hit_rate{role="champion"})', "percentunit"),
            stat("Fallback on the same", 'max(tickloom_model_fallback_hit_rate{role="champion"})', "percentunit"),
            stat(
                "Net of costs, a position",
                'max(tickloom_model_net_profit_bps{role="champion"})',
                "none",
                about="In basis points, both ways paid.",
                decimals=2,
            ),
            stat("Feed clients", "sum(tickloom_feed_clients)"),
        ],
        "Market: $symbol": [
            panel(
                "Price by the minute",
                """SELECT bar_time AS time, open, high, low, close, volume FROM v_bars_1m
                WHERE $__timeFilter(bar_time) AND symbol = '${symbol}' ORDER BY time""",
                kind="candlestick",
                unit="none",
                width=14,
                height=12,
            ),
            panel(
                "Probability",
                """SELECT $__timeInterval(event_time) AS time, avg(p_up) AS up, avg(p_flat) AS flat,
                avg(p_down) AS down FROM v_predictions
                WHERE $__timeFilter(event_time) AND symbol = '${symbol}' GROUP BY time ORDER BY time""",
                unit="percentunit",
                width=10,
                height=6,
                colors={"up": UP, "flat": FLAT, "down": DOWN},
            ),
            panel(
                "Expected and realised return, bps",
                """SELECT $__timeInterval(from_time) AS time, avg(expected_return_bps) AS expected,
                avg(return_bps) AS realised FROM v_outcomes
                WHERE $__timeFilter(from_time) AND symbol = '${symbol}' AND NOT shadow
                GROUP BY time ORDER BY time""",
                unit="none",
                width=10,
                height=6,
            ),
        ],
        "What became of it": [
            panel(
                "By symbol",
                """SELECT symbol, sum(s.outcomes) AS outcomes, sum(s.moved) AS moved,
                round(sumIf(s.hit_rate * s.moved, s.moved > 0) / greatest(sum(s.moved), 1), 4) AS hit_rate,
                sum(s.positions) AS positions,
                round(sumIf(s.net_bps * s.positions, s.positions > 0), 1) AS net_bps
                FROM model_scores AS s WHERE $__timeFilter(hour) AND NOT shadow
                GROUP BY symbol ORDER BY outcomes DESC LIMIT 200""",
                kind="table",
                width=12,
                height=10,
            ),
            panel(
                "Profit of positions net of costs, summed, bps",
                """SELECT hour AS time,
                sum(sum(positions * if(positions > 0, net_bps, 0))) OVER (ORDER BY hour) AS net_bps
                FROM model_scores WHERE $__timeFilter(hour) AND NOT shadow GROUP BY hour ORDER BY time""",
                unit="none",
                width=12,
                height=10,
                about="Each position as large as every other; what a desk pays and gets is the desk's own.",
            ),
        ],
    },
    symbols=True,
)

ENGINE = dashboard(
    "engine",
    "engine",
    {
        "Now": [
            stat("Ticks a second", f"sum(rate(tickloom_ticks_total{RATE}))", "ops"),
            stat("Predictions a second", f"sum(rate(tickloom_predictions_total{RATE}))", "ops"),
            stat("Tick to feed, p99", quantile(0.99, STAGES, where=TOTAL), "s"),
            stat("Roles that answer", "sum(up)"),
            stat("Sinks that fail", "count(tickloom_sink_up == 0) or vector(0)", red_from=1),
            stat("Blocks behind", "sum(tickloom_consumer_lag_blocks)"),
            stat("Symbols", "sum(tickloom_lane_symbols)"),
            stat("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', red_from=1),
        ],
        "Throughput": [
            panel(
                "Ticks a second",
                (f"sum by (instance) (rate(tickloom_published_ticks_total{RATE}))", "sent by {{instance}}"),
                (f'sum(rate(tickloom_ticks_total{{outcome="accepted"}}{RATE}))', "accepted"),
                unit="ops",
            ),
            panel(
                "Predictions a second",
                (f"sum by (instance) (rate(tickloom_predictions_total{RATE}))", "made by {{instance}}"),
                (f"sum by (job) (rate(tickloom_predictions_written_total{RATE}))", "written by {{job}}"),
                unit="ops",
            ),
            panel(
                "Blocks behind",
                ("sum by (job, partition) (tickloom_consumer_lag_blocks)", "{{job}} {{partition}}"),
            ),
        ],
        "Latency": [
            panel("Stages, p50", (quantile(0.5, STAGES, "stage", '{job="gateway"}'), "{{stage}}"), unit="s"),
            panel("Stages, p99", (quantile(0.99, STAGES, "stage", '{job="gateway"}'), "{{stage}}"), unit="s"),
            panel(
                "Checkpoints and writes of sinks, p99",
                (quantile(0.99, "tickloom_checkpoint_seconds"), "checkpoint"),
                (quantile(0.99, "tickloom_sink_write_seconds", "job"), "{{job}}"),
                unit="s",
            ),
        ],
        "Sinks and Kafka": [
            panel(
                "Sinks",
                ("min by (job) (tickloom_sink_up)", "{{job}} is up"),
                (f"sum by (job) (rate(tickloom_sink_retries_total{RATE}))", "{{job}} retries a second"),
            ),
            panel(
                "Blocks that Kafka has not acknowledged",
                ("sum by (instance) (tickloom_unacknowledged_blocks)", "{{instance}}"),
            ),
            panel(
                "Archive: messages behind",
                ("sum by (topic) (tickloom_archive_lag_messages)", "{{topic}}"),
            ),
        ],
        "Processes": [
            panel(
                "CPU", (f"sum by (job, instance) (rate(process_cpu_seconds_total{RATE}))", "{{job}} {{instance}}")
            ),
            panel(
                "Memory",
                ("sum by (job, instance) (process_resident_memory_bytes)", "{{job}} {{instance}}"),
                unit="bytes",
            ),
            panel(
                "Slowest stages, by minute (ClickHouse)",
                """SELECT minute AS time, stage, max(p99_us) / 1e6 AS p99 FROM v_stage_latency
                WHERE $__timeFilter(minute) GROUP BY time, stage ORDER BY time""",
                unit="s",
            ),
        ],
    },
)

FEED = dashboard(
    "feed",
    "feed and API",
    {
        "Now": [
            stat("Clients", "sum(tickloom_feed_clients)"),
            stat("Messages a second", f"sum(rate(tickloom_feed_sent_total{RATE}))", "ops"),
            stat("Held for slow clients", "sum(tickloom_feed_queued)"),
            stat("Slow clients closed", "sum(tickloom_feed_slow_closes_total) or vector(0)", red_from=1),
            stat("Requests a second", f"sum(rate(tickloom_api_requests_total{RATE})) or vector(0)", "reqps"),
            stat("Requests, p99", quantile(0.99, "tickloom_api_request_seconds"), "s"),
            stat("Behind the API and up", "sum(tickloom_api_backend_up)"),
            stat("Symbols", "max(tickloom_feed_symbols)"),
        ],
        "Feed": [
            panel(
                "Messages a second",
                (f"sum by (instance) (rate(tickloom_feed_sent_total{RATE}))", "sent by {{instance}}"),
                (
                    f"sum by (instance) (rate(tickloom_feed_skipped_total{RATE}))",
                    "skipped for latest, {{instance}}",
                ),
                unit="ops",
            ),
            panel("Clients", ("sum by (instance) (tickloom_feed_clients)", "{{instance}}")),
            panel(
                "Published to sent",
                *(
                    (quantile(share, STAGES, where='{job="gateway", stage="publish_to_send"}'), f"p{100 * share:g}")
                    for share in SHARES
                ),
                unit="s",
            ),
        ],
        "Who is slow or wrong": [
            panel(
                "Held messages",
                ("sum by (instance) (tickloom_feed_queued)", "{{instance}}, over all clients"),
                ("max by (instance) (tickloom_feed_queued_max)", "{{instance}}, slowest client"),
                width=6,
            ),
            panel(
                "Closed, refused, bad, a second",
                (f"sum by (instance) (rate(tickloom_feed_slow_closes_total{RATE}))", "too slow"),
                (f"sum by (reason) (rate(tickloom_feed_refused_total{RATE}))", "{{reason}}"),
                (f"sum by (code) (rate(tickloom_feed_bad_messages_total{RATE}))", "{{code}}"),
                unit="ops",
                width=6,
            ),
            panel(
                "Told before Kafka had it, a second",
                (f"sum by (outcome) (rate(tickloom_early_predictions_total{RATE}))", "{{outcome}}"),
                unit="ops",
                width=6,
                about="Copies past Kafka: told, and confirmed by Kafka afterwards; late ones came by Kafka before.",
            ),
            panel(
                "Resumes a second",
                (f"sum by (outcome) (rate(tickloom_feed_resumes_total{RATE}))", "{{outcome}}"),
                unit="ops",
                width=6,
                about="By what a client that came back got: what it had missed, or a reset.",
            ),
        ],
        "API": [
            panel(
                "Requests a second",
                (f"sum by (route, status) (rate(tickloom_api_requests_total{RATE}))", "{{route}} {{status}}"),
                unit="reqps",
            ),
            panel("Latency, p99", (quantile(0.99, "tickloom_api_request_seconds", "route"), "{{route}}"), unit="s"),
            panel(
                "Refused a second",
                (f"sum by (reason) (rate(tickloom_api_refused_total{RATE}))", "{{reason}}"),
                unit="ops",
            ),
        ],
    },
)

MODELS = dashboard(
    "models",
    "models",
    {
        "In service": [
            stat("Hit rate", 'max(tickloom_model_hit_rate{role="champion"})', "percentunit", width=4),
            stat(
                "Fallback on the same",
                'max(tickloom_model_fallback_hit_rate{role="champion"})',
                "percentunit",
                width=4,
            ),
            stat(
                "Commoner direction",
                'max(tickloom_model_majority_hit_rate{role="champion"})',
                "percentunit",
                width=4,
            ),
            stat(
                "Brier score",
                'max(tickloom_model_brier{role="champion"})',
                "none",
                width=4,
                decimals=4,
                about="0 to 2; less is better.",
            ),
            stat("Rollbacks", "sum(tickloom_model_rollbacks_total) or vector(0)", red_from=1, width=4),
            stat("Refused models", "sum(tickloom_refused_models_total) or vector(0)", red_from=1, width=4),
        ],
        "Live scores": [
            panel(
                "Hit rate of moves",
                ("max by (model, role) (tickloom_model_hit_rate)", "{{role}} {{model}}"),
                ("max by (model) (tickloom_model_fallback_hit_rate)", "fallback beside {{model}}"),
                ("max by (model) (tickloom_model_majority_hit_rate)", "commoner direction, {{model}}"),
                unit="percentunit",
            ),
            panel(
                "Log loss, nats",
                ("max by (model, role) (tickloom_model_log_loss_beside_fallback_nats)", "{{role}} {{model}}"),
                ("max by (model) (tickloom_model_fallback_log_loss_nats)", "fallback beside {{model}}"),
                unit="none",
            ),
            panel(
                "Information coefficient, and net of costs",
                ("max by (model, role) (tickloom_model_information_coefficient)", "IC {{role}} {{model}}"),
                ("max by (model, role) (tickloom_model_net_profit_bps)", "bps a position, {{role}} {{model}}"),
                unit="none",
            ),
        ],
        "Drift and the trial": [
            panel(
                "Answers: PSI",
                ("max by (answer) (tickloom_answer_drift_psi)", "{{answer}}"),
                unit="none",
                red_from=0.25,
                about="0.1 is some, 0.25 much.",
            ),
            panel(
                "Features: PSI, the twelve highest",
                ("topk(12, max by (feature) (tickloom_feature_drift_psi))", "{{feature}}"),
                unit="none",
            ),
            panel(
                "Sequential test against the model in service",
                ("max by (other) (tickloom_model_trial_e_value)", "e-value against {{other}}"),
                ("max by (other) (tickloom_model_trial_threshold)", "goes out of service, {{other}}"),
                unit="none",
            ),
        ],
        "Swaps and events": [
            panel(
                "Swaps and shadow",
                (f"sum(increase(tickloom_model_swaps_total{RATE}))", "swaps"),
                (f"sum(rate(tickloom_shadow_predictions_total{RATE}))", "shadow predictions a second"),
                ("sum(tickloom_challengers_dropped_total)", "challengers dropped"),
            ),
            panel(
                "How long a swap holds a lane up",
                (quantile(0.99, "tickloom_model_swap_wait_seconds"), "wait, p99"),
                (quantile(0.99, "tickloom_model_load_seconds"), "load, p99"),
                unit="s",
            ),
            panel(
                "Events",
                """SELECT at_time, kind, model, other, round(value, 4) AS value, predictions, detail
                FROM v_model_events WHERE at_time >= $__fromTime AND at_time <= $__toTime
                ORDER BY at_time DESC LIMIT 200""",
                kind="table",
            ),
        ],
        "Calibration (ClickHouse)": [
            panel(
                "Said and happened: up",
                """SELECT round(p_up, 1) AS said, count() AS outcomes, round(avg(p_up), 4) AS mean_said,
                round(avg(realised_class = 'up'), 4) AS happened FROM v_outcomes
                WHERE from_time >= $__fromTime AND from_time <= $__toTime AND NOT shadow
                GROUP BY said ORDER BY said""",
                kind="table",
                width=12,
            ),
            panel(
                "By hour and model",
                """SELECT hour, model, shadow, sum(s.outcomes) AS outcomes,
                round(sum(s.log_loss * s.outcomes) / sum(s.outcomes), 5) AS log_loss,
                round(sum(s.brier * s.outcomes) / sum(s.outcomes), 5) AS brier FROM model_scores AS s
                WHERE hour >= $__fromTime AND hour <= $__toTime
                GROUP BY hour, model, shadow ORDER BY hour DESC, model""",
                kind="table",
                width=12,
            ),
        ],
    },
)

QUALITY = dashboard(
    "quality",
    "data quality",
    {
        "Now": [
            stat(
                "Refused ticks",
                f"""sum(rate(tickloom_ticks_total{{outcome!~"accepted|control|duplicate|already_applied"}}{RATE}))
                / sum(rate(tickloom_ticks_total{RATE}))""",
                "percentunit",
                red_from=0.01,
                width=4,
            ),
            stat(
                "Late ticks a second",
                f'sum(rate(tickloom_ticks_total{{outcome="late"}}{RATE})) or vector(0)',
                "ops",
                width=4,
            ),
            stat("Gaps of sources", "sum(tickloom_source_gaps_total) or vector(0)", red_from=1, width=4),
            stat(
                "Trades known to be missing",
                "sum(tickloom_source_missed_trades_total) or vector(0)",
                red_from=1,
                width=4,
            ),
            stat("Predictions missing", "sum(tickloom_prediction_gaps_total) or vector(0)", red_from=1, width=4),
            stat(
                "Lost to retention",
                'sum(tickloom_blocks_total{outcome="lost_to_retention"}) or vector(0)',
                red_from=1,
                width=4,
            ),
        ],
        "Ticks": [
            panel(
                "What became of ticks, a second",
                (f"sum by (outcome) (rate(tickloom_ticks_total{RATE}))", "{{outcome}}"),
                unit="ops",
            ),
            panel(
                "Refused a second, by symbol and reason",
                (
                    f"topk(12, sum by (symbol, reason) (rate(tickloom_rejected_ticks_total{RATE})) > 0)",
                    "{{symbol}} {{reason}}",
                ),
                unit="ops",
            ),
            panel(
                "Accepted with a mark, a second",
                (
                    f"topk(12, sum by (symbol, mark) (rate(tickloom_marked_ticks_total{RATE})) > 0)",
                    "{{symbol}} {{mark}}",
                ),
                unit="ops",
            ),
        ],
        "Sources": [
            panel("Connected", ("min by (instance, connection) (tickloom_source_connected)", "{{connection}}")),
            panel(
                "Gaps and lost trades, in all",
                ("sum by (symbol, reason) (tickloom_source_gaps_total)", "{{symbol}} {{reason}}"),
                ("sum by (symbol) (tickloom_source_missed_trades_total)", "{{symbol}} trades missed"),
                ("sum by (reason) (tickloom_source_disconnects_total)", "disconnected: {{reason}}"),
            ),
            panel(
                "Behind the pace", ("max by (instance) (tickloom_source_behind_seconds)", "{{instance}}"), unit="s"
            ),
        ],
        "Never normal, in all": [
            panel(
                "Downstream",
                ("sum by (job) (tickloom_prediction_gaps_total)", "predictions missing, {{job}}"),
                ("sum by (job) (tickloom_predictions_refused_total)", "refused by the sink of {{job}}"),
                ("sum by (job) (tickloom_bad_predictions_total)", "cannot be true, {{job}}"),
                ("sum by (job, reason) (tickloom_bad_blocks_total)", "unreadable, {{job}} {{reason}}"),
                width=12,
            ),
            panel(
                "Upstream",
                (
                    'sum by (job, outcome) (tickloom_blocks_total{outcome!="applied"})',
                    "blocks {{outcome}}, {{job}}",
                ),
                ("sum by (job, error) (tickloom_publish_failures_total)", "not sent by {{job}}: {{error}}"),
                ("sum by (topic) (tickloom_archive_missing_messages_total)", "not archived: {{topic}}"),
                width=12,
            ),
        ],
        "In ClickHouse": [
            panel(
                "Refused, by reason",
                """SELECT reason, symbol, count() AS ticks, min(event_time) AS first, max(event_time) AS last
                FROM v_rejected WHERE recv_time >= $__fromTime AND recv_time <= $__toTime
                GROUP BY reason, symbol ORDER BY ticks DESC LIMIT 200""",
                kind="table",
                width=12,
            ),
            panel(
                "Symbols that have been silent for longest",
                """SELECT symbol, max(event_time) AS newest, count() AS ticks FROM v_ticks
                WHERE event_time >= $__fromTime AND event_time <= $__toTime
                GROUP BY symbol ORDER BY newest LIMIT 100""",
                kind="table",
                width=12,
            ),
        ],
    },
)

CORES = f"sum(rate(process_cpu_seconds_total{RATE}))"
GIB = "sum(process_resident_memory_bytes) / 2^30"
COST = dashboard(
    "cost",
    "cost",
    {
        "Now, at the prices above": [
            stat("Cores", CORES, "none", width=4, decimals=2),
            stat("Memory", "sum(process_resident_memory_bytes)", "bytes", width=4),
            stat("USD a day", f"24 * ({CORES} * $core_usd + {GIB} * $gib_usd)", "currencyUSD", width=4, decimals=2),
            stat(
                "USD for a million predictions",
                f"""1e6 / 3600 * ({CORES} * $core_usd + {GIB} * $gib_usd)
                / sum(rate(tickloom_predictions_total{RATE}))""",
                "currencyUSD",
                width=4,
                decimals=4,
            ),
            stat(
                "Budget used",
                "tickloom:cost_usd_per_day / tickloom:budget_usd_per_day",
                "percentunit",
                width=4,
                red_from=1,
            ),
            stat(
                "Core seconds for a million ticks",
                f"1e6 * {CORES} / sum(rate(tickloom_ticks_total{RATE}))",
                "s",
                width=4,
            ),
        ],
        "By role": [
            panel(
                "USD a day",
                (
                    f"""24 * (sum by (job) (rate(process_cpu_seconds_total{RATE})) * $core_usd
                    + sum by (job) (process_resident_memory_bytes) / 2^30 * $gib_usd)""",
                    "{{job}}",
                ),
                unit="currencyUSD",
                width=12,
                about="What our own processes use; the servers of Kafka, ClickHouse and Redis come on top.",
            ),
            panel(
                "Cores", (f"sum by (job) (rate(process_cpu_seconds_total{RATE}))", "{{job}}"), unit="none", width=12
            ),
        ],
        "Storage": [
            panel(
                "ClickHouse, by table",
                """SELECT p.table AS name, sum(p.rows) AS rows, sum(p.bytes_on_disk) AS bytes,
                round(sum(p.bytes_on_disk) / greatest(sum(p.rows), 1), 2) AS bytes_per_row,
                round(sum(p.bytes_on_disk) / pow(2, 30) * $disk_usd, 4) AS usd_a_month FROM system.parts AS p
                WHERE p.active AND p.database = currentDatabase() GROUP BY name ORDER BY bytes DESC""",
                kind="table",
                width=12,
            ),
            panel(
                "Disk of ClickHouse, free",
                ("ClickHouseAsyncMetrics_DiskAvailable_default", "free"),
                ("ClickHouseAsyncMetrics_DiskTotal_default", "in all"),
                unit="bytes",
                width=6,
            ),
            panel(
                "Archive: bytes a second",
                (f"sum by (topic) (rate(tickloom_archive_bytes_total{RATE}))", "{{topic}}"),
                unit="Bps",
                width=6,
            ),
        ],
    },
    prices=True,
)

BOARDS = {
    "trading": TRADING,
    "engine": ENGINE,
    "feed": FEED,
    "models": MODELS,
    "quality": QUALITY,
    "cost": COST,
}
