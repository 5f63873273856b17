"""Made-up rows for `bench.query_book`, made by the server itself, symbol by symbol and day by day."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from exporters.clickhouse.derived import Span, Touched, compute

MODEL: Final = f"{1:016x}"
SHADOW: Final = f"{2:016x}"
_S: Final = 1_000_000_000
_FIRST_DAY_S: Final = 1_735_689_600  # 2025-01-01
_OPEN_S: Final = 13 * 3600 + 1800
_SESSION_NS: Final = 23_400 * _S
_AHEAD_NS: Final = 10 * _S

# A mid that wanders smoothly and jitters by some cents; {i} is the number of the tick in its day.
_MID: Final = (
    "round(100 * exp(0.01 * sin({i} / 31000. + {s}) + 0.002 * sin({i} / 711.) + 0.0004 * sin({i} / 17.)), 2)"
    " + 0.005 * (toInt64(cityHash64({i}, {s}, {d}) % 5) - 2)"
)
_ROWS: Final = """
SELECT
    'SYM{s:02d}' AS symbol,
    number AS i,
    {open_ns} + i * {step_ns} + cityHash64(i, 1) % {step_ns} AS event_ns,
    {mid} AS mid,
    cityHash64(i, {s}, 2) AS h,
    i % 5 = 0 AS is_trade
FROM numbers({count})
"""
_TICKS: Final = """
INSERT INTO ticks (symbol, event_time, recv_time, source_seq, kind, price, size, bid, ask, bid_size, ask_size, side,
    stream_id, source_partition, source_offset, source_index, ingested_time, rank, epoch)
SELECT symbol, fromUnixTimestamp64Nano(event_ns), fromUnixTimestamp64Nano(toInt64(event_ns + h % 3000000)), i + 1,
    if(is_trade, 1, 2), if(is_trade, mid + 0.01 * (toInt64(h % 3) - 1), NaN),
    if(is_trade, 100. * (1 + h % 9), NaN), if(is_trade, NaN, mid - 0.01), if(is_trade, NaN, mid + 0.01),
    if(is_trade, NaN, 100. * (1 + h % 30)), if(is_trade, NaN, 100. * (1 + intDiv(h, 31) % 30)),
    if(is_trade, toInt64(h % 3) - 1, 0), {stream}, {s} % 4, intDiv(i, 100), i % 100,
    fromUnixTimestamp64Nano(toInt64(event_ns + 500000000)), bitShiftLeft(toUInt64(2), 56) - i, 'one'
FROM ({rows})
"""
_REJECTED: Final = """
INSERT INTO rejected (symbol, event_time, recv_time, source_seq, kind, price, size, source_partition, source_offset,
    source_index, ingested_time, reason, epoch)
SELECT symbol, fromUnixTimestamp64Nano(event_ns), fromUnixTimestamp64Nano(event_ns), i + 1, 1, mid * 10, 100.,
    {s} % 4, intDiv(i, 100), i % 100, fromUnixTimestamp64Nano(event_ns), 12, 'one'
FROM ({rows})
WHERE i % 10000 = 5000
"""
_PREDICTIONS: Final = """
INSERT INTO predictions (symbol, seq, event_time, ref_price, horizon_ns, p_down, p_flat, p_up, expected_return_bps,
    model_id, feature_hash, flags, source_partition, source_offset, source_index, recv_time, consumed_time,
    features_time, inferred_time, published_time, ingested_time, epoch, newest_time, trade_price, trade_size,
    tick_kind, side)
SELECT symbol, i + 1 + {seq_before}, fromUnixTimestamp64Nano(event_ns), mid, {ahead_ns},
    0.2 + (h % 997) / 4000 AS p_down, 1 - p_down - p_up, 0.2 + (intDiv(h, 997) % 997) / 4000 AS p_up,
    5 * (p_up - p_down), 1, h, 0, {s} % 4, intDiv(i, 100), i % 100,
    fromUnixTimestamp64Nano(toInt64(event_ns + 1000000)) AS recv,
    recv + toIntervalNanosecond(200000 + h % 3000000) AS consumed,
    consumed + toIntervalNanosecond(20000 + h % 70000) AS features,
    features + toIntervalNanosecond(10000 + h % 30000) AS inferred,
    inferred + toIntervalNanosecond(30000 + h % 90000) AS published,
    published + toIntervalMillisecond(400), 'one', fromUnixTimestamp64Nano(event_ns),
    if(is_trade, mid + 0.01 * (toInt64(h % 3) - 1), NaN), if(is_trade, 100. * (1 + h % 9), NaN),
    if(is_trade, 1, 2), if(is_trade, toInt64(h % 3) - 1, 0)
FROM ({rows})
"""
_OUTCOMES: Final = """
INSERT INTO outcomes (symbol, model_id, seq, event_time, from_time, resolved_time, horizon_ns, ref_price,
    later_price, return_bps, expected_return_bps, p_down, p_flat, p_up, fallback_down, fallback_flat, fallback_up,
    log_loss, brier, fallback_log_loss, cost_bps, realised, flags, source_partition, knows_fallback, epoch)
SELECT symbol, {model}, i + 1 + {seq_before}, fromUnixTimestamp64Nano(event_ns), fromUnixTimestamp64Nano(event_ns),
    fromUnixTimestamp64Nano(toInt64(event_ns + {ahead_ns})), {ahead_ns}, mid, {later} AS later_mid,
    (later_mid / mid - 1) * 1e4 AS move_bps, 5 * (p_up - p_down), 0.2 + (h % 997) / 4000 AS p_down,
    1 - p_down - p_up AS p_flat, 0.2 + (intDiv(h, 997 * {model}) % 997) / 4000 AS p_up, 0.3, 0.4, 0.3,
    -log([p_down, p_flat, p_up][happened + 1]),
    1 - 2 * [p_down, p_flat, p_up][happened + 1] + p_down * p_down + p_flat * p_flat + p_up * p_up,
    -log([0.3, 0.4, 0.3][happened + 1]), 0.5,
    multiIf(move_bps < -1, 0, move_bps > 1, 2, 1) AS happened, {shadow},
    {s} % 4, 1, 'one'
FROM ({rows})
"""
_ENOUGH: Final = {"max_partitions_per_insert_block": 0, "min_insert_block_size_rows": 4_000_000, "max_threads": 1}


@dataclass(frozen=True)
class Filling:
    """How many rows, and of what."""

    rows: int
    symbols: int
    days: int

    @property
    def count(self) -> int:
        """How many ticks a symbol has on a day."""
        return self.rows // (self.symbols * self.days)


def first_day(_: Filling) -> datetime:
    """Return the first day that has ticks."""
    return datetime.fromtimestamp(_FIRST_DAY_S, UTC)


def fill(client: Any, filling: Filling, say: Callable[[str], None]) -> None:
    """Put the rows in that are not there yet, a symbol's day at a time, and compute the bars of each day."""
    has, has_bars = (
        set(client.execute(f"SELECT DISTINCT symbol, toUnixTimestamp(toStartOfDay({time})) FROM {table}"))  # noqa: S608
        for table, time in (("outcomes", "event_time"), ("bars_1h", "bar_time"))
    )
    for day in range(filling.days):
        day_s = _FIRST_DAY_S + day * 86_400
        names = [f"SYM{number:02d}" for number in range(filling.symbols)]
        for number, name in enumerate(names):
            if (name, day_s) not in has:
                _fill_day(client, filling, number, day)
        touched = Touched()
        span = ((day_s + _OPEN_S) * _S, (day_s + _OPEN_S) * _S + _SESSION_NS)
        for name in names:
            if (name, day_s) not in has_bars:
                touched.put(name.encode(), Span(*span, *span))
        compute(client, touched)
        say(f"{(day + 1) * filling.symbols * filling.count:,} ticks are there")


def _fill_day(client: Any, filling: Filling, number: int, day: int) -> None:
    open_ns = (_FIRST_DAY_S + day * 86_400 + _OPEN_S) * _S
    step_ns = _SESSION_NS // filling.count
    ahead = max(1, _AHEAD_NS // step_ns)
    names = {
        "s": number,
        "stream": day * 100 + number,
        "ahead_ns": _AHEAD_NS,
        "seq_before": day * filling.count,
        "later": _MID.format(i=f"(i + {ahead})", s=number, d=day),
    }
    mid = _MID.format(i="i", s=number, d=day)
    names["rows"] = _ROWS.format(s=number, open_ns=open_ns, step_ns=step_ns, count=filling.count, mid=mid)
    for statement in (_TICKS, _REJECTED, _PREDICTIONS):
        client.execute(statement.format(**names), settings=_ENOUGH)
    if number == 0:  # a challenger for one symbol
        client.execute(_OUTCOMES.format(model=2, shadow=1, **names), settings=_ENOUGH)
    client.execute(_OUTCOMES.format(model=1, shadow=0, **names), settings=_ENOUGH)
