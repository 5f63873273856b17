"""What follows from the predictions in ClickHouse: bars, and how long each stage took. SQL, and when to run it.

Neither is made by a materialized view. A view adds up what is inserted, and what is inserted is repeated, cut
differently, after a crash. Here the spans that new predictions touch are computed anew from the rows in the table,
each of which counts once. That may be done any number of times and by anybody: of two results for the same bar the
one of more ticks stays, so that neither a repetition nor a zombie that computes late does harm.

An exporter does this before it commits the offsets of the predictions. Where it dies before, they are read again,
and their spans are computed again.
"""

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

import numpy as np
from clickhouse_driver import Client

from exporters.clickhouse.distinct import distinct_symbols
from stream.records import Records

NS_PER_S: Final = 1_000_000_000
_DAY_S: Final = 24 * 3600
# One thread adds in the order of the table, so that sums of floats come out the same but for the last bit, in which
# it shows how the rows lay in parts. Days of old bars are partitions by the thousand. A result that is the same as
# before is no repeated insert.
_SETTINGS: Final = {"max_threads": 1, "max_partitions_per_insert_block": 0, "insert_deduplicate": 0}

# A tick that is out of order counts in the bar that was open then, as everywhere in tickloom: hence newest_time.
# Its own time, by which the table is sorted, lies before: by a day at the most, or else it is in no bar.
_BARS_1S: Final = """
INSERT INTO bars_1s (symbol, bar_time, open, high, low, close, volume, notional, ticks, trades)
SELECT
    symbol,
    toDateTime(newest_time, 'UTC') AS second,
    argMin(ref_price, seq),
    max(ref_price),
    min(ref_price),
    argMax(ref_price, seq),
    sumIf(trade_size, tick_kind = 'trade'),
    sumIf(trade_price * trade_size, tick_kind = 'trade'),
    count(),
    countIf(tick_kind = 'trade')
FROM predictions
FINAL
WHERE symbol IN %(symbols)s
    AND newest_time >= toDateTime64(%(from_s)s, 9, 'UTC')
    AND newest_time < toDateTime64(%(to_s)s, 9, 'UTC')
    AND event_time >= toDateTime64(%(early_s)s, 9, 'UTC')
    AND event_time < toDateTime64(%(to_s)s, 9, 'UTC')
GROUP BY symbol, second
SETTINGS do_not_merge_across_partitions_select_final = 1
"""
_LONGER_BARS: Final = """
INSERT INTO {target} (symbol, bar_time, open, high, low, close, volume, notional, ticks, trades)
SELECT
    symbol,
    toStartOfInterval(bar_time, INTERVAL {length_s} SECOND) AS longer,
    argMin(open, bar_time),
    max(high),
    min(low),
    argMax(close, bar_time),
    sum(volume),
    sum(notional),
    sum(ticks),
    sum(trades)
FROM {source}
FINAL
WHERE symbol IN %(symbols)s AND bar_time >= toDateTime(%(from_s)s, 'UTC') AND bar_time < toDateTime(%(to_s)s, 'UTC')
GROUP BY symbol, longer
SETTINGS do_not_merge_across_partitions_select_final = 1
"""
_LENGTHS_S: Final = (("bars_1m", "bars_1s", 60), ("bars_1h", "bars_1m", 3600))
# Latencies are counted by their first three digits. By the minute of the event as well, because that is how the
# table is sorted: the rows of a minute on our clock may lie anywhere.
_STAGES: Final = """
INSERT INTO stage_latency (event_minute, minute, stage, predictions, latency_ns, counts, max_ns)
SELECT event_minute, minute, stage, sum(n), groupArray(bucket_ns), groupArray(n), max(highest_ns)
FROM
(
    SELECT event_minute, minute, stage, bucket_ns, count() AS n, max(ns) AS highest_ns
    FROM
    (
        SELECT
            toStartOfMinute(event_time) AS event_minute,
            toStartOfMinute(published_time) AS minute,
            arrayJoin([
                ('source_to_consumed', toUnixTimestamp64Nano(consumed_time) - toUnixTimestamp64Nano(recv_time)),
                ('features', toUnixTimestamp64Nano(features_time) - toUnixTimestamp64Nano(consumed_time)),
                ('inference', toUnixTimestamp64Nano(inferred_time) - toUnixTimestamp64Nano(features_time)),
                ('publish', toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(inferred_time)),
                ('tick_to_prediction', toUnixTimestamp64Nano(published_time) - toUnixTimestamp64Nano(recv_time))
            ]) AS pair,
            pair.1 AS stage,
            pair.2 AS ns,
            toInt64(exp10(greatest(0, floor(log10(abs(ns) + 1)) - 2))) AS step_ns,
            sign(ns) * intDiv(abs(ns), step_ns) * step_ns AS bucket_ns
        FROM predictions
        FINAL
        WHERE event_time >= toDateTime64(%(from_s)s, 9, 'UTC') AND event_time < toDateTime64(%(to_s)s, 9, 'UTC')
    )
    GROUP BY event_minute, minute, stage, bucket_ns
    ORDER BY event_minute, minute, stage, bucket_ns
)
GROUP BY event_minute, minute, stage
SETTINGS do_not_merge_across_partitions_select_final = 1
"""
_SPANS: Final = """
SELECT
    symbol,
    toUnixTimestamp64Nano(min(newest_time)),
    toUnixTimestamp64Nano(max(newest_time)),
    toUnixTimestamp64Nano(min(event_time)),
    toUnixTimestamp64Nano(max(event_time))
FROM predictions
WHERE event_time >= toDateTime64(%(first)s, 9, 'UTC') AND event_time < toDateTime64(%(end)s, 9, 'UTC')
GROUP BY symbol
"""


@dataclass
class Span:
    """What of some symbols must be computed anew: all between these, in ns."""

    first_bar_ns: int
    last_bar_ns: int
    first_event_ns: int
    last_event_ns: int

    def join(self, other: "Span") -> None:
        """Hold the other as well."""
        self.first_bar_ns = min(self.first_bar_ns, other.first_bar_ns)
        self.last_bar_ns = max(self.last_bar_ns, other.last_bar_ns)
        self.first_event_ns = min(self.first_event_ns, other.first_event_ns)
        self.last_event_ns = max(self.last_event_ns, other.last_event_ns)


@dataclass
class Touched:
    """Which spans predictions touched since they were last computed."""

    spans: dict[bytes, Span] = field(default_factory=dict)

    def add(self, rows: Records) -> None:
        """Take note of ``STORED_PREDICTION[N]``, N >= 1."""
        firsts, codes = distinct_symbols(rows["symbol"])
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(firsts)))
        bars_ns, events_ns = rows["newest_ns"][order], rows["event_ns"][order]
        edges = zip(
            rows["symbol"][firsts].tolist(),
            np.minimum.reduceat(bars_ns, starts).tolist(),
            np.maximum.reduceat(bars_ns, starts).tolist(),
            np.minimum.reduceat(events_ns, starts).tolist(),
            np.maximum.reduceat(events_ns, starts).tolist(),
            strict=True,
        )
        for symbol, *span in edges:
            self.put(symbol, Span(*span))

    def put(self, symbol: bytes, span: Span) -> None:
        """Take note of a span of a symbol."""
        if symbol in self.spans:
            self.spans[symbol].join(span)
        else:
            self.spans[symbol] = span

    def groups(self) -> list[tuple[list[str], Span]]:
        """Return the symbols whose spans lie in the same hours, and what they span together.

        One statement for all symbols would read all between the first and the last, which may be years apart.
        """
        groups: dict[tuple[int, int], tuple[list[str], Span]] = {}
        hour_ns = 3600 * NS_PER_S
        for symbol, span in self.spans.items():
            symbols, whole = groups.setdefault(
                (span.first_bar_ns // hour_ns, span.last_bar_ns // hour_ns), ([], replace(span))
            )
            symbols.append(symbol.decode())
            whole.join(span)
        return list(groups.values())


def touched_days(client: Client, first: date, last: date) -> Touched:
    """Return what there is of some days of event time as touched: a span for each symbol.

    Raises:
        clickhouse_driver.errors.Error: the server refused.
    """
    days = {"first": first.isoformat(), "end": (last + timedelta(days=1)).isoformat()}
    touched = Touched()
    for symbol, *span in client.execute(_SPANS, days):
        touched.put(symbol.encode(), Span(*span))
    return touched


def compute(client: Client, touched: Touched) -> None:
    """Compute all bars and latencies that predictions touched, from the rows in the table.

    Raises:
        clickhouse_driver.errors.Error, EOFError, OSError: as `Client.execute`; run it again then.
    """
    minutes: set[tuple[int, int]] = set()
    for symbols, span in touched.groups():
        first_s, last_s = span.first_bar_ns // NS_PER_S, span.last_bar_ns // NS_PER_S
        seconds = {"symbols": symbols, "from_s": first_s, "to_s": last_s + 1, "early_s": first_s - _DAY_S}
        client.execute(_BARS_1S, seconds, settings=_SETTINGS)
        for target, source, length_s in _LENGTHS_S:
            whole = {
                "symbols": symbols,
                "from_s": first_s // length_s * length_s,
                "to_s": (last_s // length_s + 1) * length_s,
            }
            statement = _LONGER_BARS.format(target=target, source=source, length_s=length_s)
            client.execute(statement, whole, settings=_SETTINGS)
        first_ns, last_ns = span.first_event_ns, span.last_event_ns
        minutes.add((first_ns // NS_PER_S // 60 * 60, (last_ns // NS_PER_S // 60 + 1) * 60))
    for from_s, to_s in _joined(minutes):
        client.execute(_STAGES, {"from_s": from_s, "to_s": to_s}, settings=_SETTINGS)


def _joined(spans: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined
