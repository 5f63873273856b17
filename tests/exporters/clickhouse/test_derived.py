"""Bars are those of the feed, latencies those of the predictions, however often and however cut they come."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_day import MarketDay, feed_bars, market_day
from trial_database import BARS, KnownTicks, ask, batch_of, url_of

from exporters.batch import Batch
from exporters.clickhouse.derived import Span, Touched
from exporters.clickhouse.predictions import PredictionSink
from stream.clock import NS_PER_S
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import Mark, Records, TickKind

LENGTHS_NS = {"v_bars_1s": NS_PER_S, "v_bars_1m": 60 * NS_PER_S, "v_bars_1h": 3600 * NS_PER_S}
DERIVED = (*LENGTHS_NS, "v_stage_latency")
PRICES = "symbol, toInt64(toUnixTimestamp(bar_time)), open, high, low, close, ticks"


@pytest.fixture(scope="session")
def day(shared_data: Path) -> MarketDay:
    """Some minutes of real ticks."""
    return market_day(shared_data, 24_000)


async def store(url: str, day: MarketDay, pieces: list[Records], settle_every: int = 3) -> None:
    sink = PredictionSink(url, KnownTicks(day.blocks))
    for number, piece in enumerate(pieces):
        await sink.write(batch_of(piece))
        if number % settle_every == 0:
            await sink.settle()
    await sink.settle()
    await sink.close()


def everything(url: str) -> Counter[str]:
    # As text, because NaN is no NaN; counted, because a row that is there twice is one too many.
    return Counter(
        f"{view} {row}"
        for view in DERIVED
        for row in ask(url, f"SELECT {BARS if view in LENGTHS_NS else '*'} FROM {view}")  # noqa: S608
    )


def is_same(left: Counter[str], right: Counter[str]) -> None:
    assert sorted((left - right) | (right - left))[:4] == []


@pytest.fixture(scope="session")
def undisturbed(clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str], day: MarketDay) -> str:
    """The address of a database that got the day in order, each prediction once."""
    url = url_of(clickhouse, fresh_name("db"))
    asyncio.run(store(url, day, np.array_split(day.predictions, 9)))
    return url


@pytest.mark.parametrize("view", ["v_bars_1s", "v_bars_1m"])
def test_bars_of_real_ticks_are_those_of_the_feed(undisturbed: str, day: MarketDay, view: str) -> None:
    late = day.predictions["flags"] & Mark.OUT_OF_ORDER != 0
    assert late.sum() > 100  # they count in the bar that was open, and that is what could go wrong
    bars = feed_bars(day.predictions, LENGTHS_NS[view])
    assert len(bars) > 10
    want = {
        (bar["symbol"].decode(), int(bar["start_ns"]) // NS_PER_S): tuple(
            bar[name].item() for name in ("open", "high", "low", "close", "ticks")
        )
        for bar in bars
    }
    seen = {(row[0], row[1]): row[2:] for row in ask(undisturbed, f"SELECT {PRICES} FROM {view}")}  # noqa: S608
    # The feed leaves out the first bar of a symbol, which may have begun before it, and the last: it is not over.
    assert {key: seen[key] for key in want} == want
    assert len(seen) - len(want) == 2 * len(np.unique(day.predictions["symbol"]))
    assert sum(row[4] for row in seen.values()) == len(day.predictions)


@pytest.mark.parametrize("view", LENGTHS_NS)
def test_volume_is_that_of_the_trades_among_the_ticks_of_a_bar(undisturbed: str, day: MarketDay, view: str) -> None:
    trades = day.ticks["kind"] == TickKind.TRADE
    size, price = day.ticks["size"][trades], day.ticks["price"][trades]
    assert 1000 < trades.sum() < len(trades) - 1000
    wanted = (trades.sum(), size.sum(), (size * price).sum())
    assert ask(undisturbed, f"SELECT sum(trades), sum(volume), sum(notional) FROM {view}")[0] == pytest.approx(  # noqa: S608
        wanted, rel=1e-12
    )


def test_latencies_are_those_of_the_predictions_to_three_digits(undisturbed: str, day: MarketDay) -> None:
    rows = day.predictions
    minutes = rows["published_ns"] // (60 * NS_PER_S)
    stages = {"publish": ("inferred_ns", "published_ns"), "tick_to_prediction": ("recv_ns", "published_ns")}
    found = {
        (stage, minute): values
        for stage, minute, *values in ask(
            undisturbed,
            "SELECT stage, toInt64(toUnixTimestamp(minute)), predictions, p50_us, p99_us, max_us"
            " FROM v_stage_latency",
        )
    }
    assert len(found) == 5 * len(np.unique(minutes))
    for stage, (begin, end) in stages.items():
        for minute in np.unique(minutes):
            latency_us = np.sort((rows[end] - rows[begin])[minutes == minute]) / 1e3
            count, p50_us, p99_us, max_us = found[stage, int(minute) * 60]
            assert count == len(latency_us)
            assert max_us == pytest.approx(latency_us[-1], rel=1e-12)
            assert p50_us == pytest.approx(latency_us[len(latency_us) // 2], rel=0.011)
            assert p99_us == pytest.approx(np.quantile(latency_us, 0.99, method="higher"), rel=0.011)


@given(data=st.data())
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_replays_that_are_cut_differently_leave_bars_and_latencies_as_they_were(
    clickhouse: EmbeddedClickHouse, fresh_name: Any, day: MarketDay, undisturbed: str, data: st.DataObject
) -> None:
    url, last = url_of(clickhouse, fresh_name("db")), len(day.predictions)
    done, pieces = 0, []
    while done < last:  # go on, then fall back by some, as after a crash
        end = min(last, done + data.draw(st.integers(5_000, last), "rows"))
        pieces.append(day.predictions[done:end])
        done = end if end == last else max(0, end - data.draw(st.integers(0, 900), "again"))
    await store(url, day, pieces, settle_every=data.draw(st.integers(1, 3), "settle"))
    is_same(everything(url), everything(undisturbed))


async def test_a_sink_that_dies_before_it_settles_leaves_nothing_out_once_its_rows_are_read_again(
    url: str, day: MarketDay, undisturbed: str
) -> None:
    first, second = day.predictions[:12_000], day.predictions[10_000:]
    dead = PredictionSink(url, KnownTicks(day.blocks))
    await dead.write(batch_of(first))
    await dead.close()
    await store(url, day, [day.predictions[:4_000], day.predictions[4_000:11_000], second])
    is_same(everything(url), everything(undisturbed))


async def test_a_bar_that_a_zombie_computes_of_fewer_ticks_does_not_count(url: str, day: MarketDay) -> None:
    await store(url, day, [day.predictions])
    before = everything(url)
    [(symbol, bar_time)] = ask(
        url, "SELECT symbol, toUnixTimestamp(bar_time) FROM v_bars_1s WHERE ticks > 10 LIMIT 1"
    )
    columns = "symbol, bar_time, open, high, low, close, volume, notional, ticks, trades"
    ask(url, f"INSERT INTO bars_1s ({columns}) VALUES ('{symbol}', {bar_time}, 1, 1, 1, 1, 1, 1, 3, 1)")  # noqa: S608
    is_same(everything(url), before)


async def test_a_late_tick_counts_in_the_bar_that_was_open_even_where_an_earlier_batch_opened_it(
    sink: PredictionSink, url: str, make_rows: Any
) -> None:
    rows = make_rows(["AIG"], 4)
    rows["event_ns"] = np.array([1_000, 2_500, 1_900, 2_600]) * 1_000_000 + 1_700_000_000 * NS_PER_S
    rows["flags"][2] = Mark.OUT_OF_ORDER
    for piece in (rows[:2], rows[2:3], rows[3:]):
        await sink.write(batch_of(piece))
        await sink.settle()
    assert ask(url, "SELECT toUnixTimestamp(bar_time) - 1700000000, ticks FROM v_bars_1s ORDER BY bar_time") == [
        (1, 1),
        (2, 3),
    ]


async def test_a_late_tick_of_another_epoch_opens_a_bar_of_its_own(
    sink: PredictionSink, url: str, make_rows: Any
) -> None:
    rows = make_rows(["AIG"], 2)
    rows["event_ns"] = np.array([2_500, 1_900]) * 1_000_000 + 1_700_000_000 * NS_PER_S
    rows["flags"][1] = Mark.OUT_OF_ORDER
    await sink.write(Batch(rows[:1], ((0, 1, 1),), "one"))
    await sink.write(Batch(rows[1:], ((0, 1, 1),), "two"))
    await sink.settle()
    assert ask(url, "SELECT count(), sum(ticks) FROM v_bars_1s") == [(2, 2)]


def test_symbols_in_other_hours_are_computed_apart() -> None:
    touched, hour_ns = Touched(), 3600 * NS_PER_S
    touched.put(b"A", Span(5, 9, 5, 9))
    touched.put(b"B", Span(1, 7, 1, 7))
    touched.put(b"C", Span(9 * hour_ns, 9 * hour_ns + 1, 9 * hour_ns, 9 * hour_ns + 1))
    touched.put(b"A", Span(2, 11, 4, 6))
    assert touched.groups() == [
        (["A", "B"], Span(1, 11, 1, 9)),
        (["C"], Span(9 * hour_ns, 9 * hour_ns + 1, 9 * hour_ns, 9 * hour_ns + 1)),
    ]
