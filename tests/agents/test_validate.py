"""What becomes of each kind of tick, on made-up and on recorded ones."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, MS, Feed, equity_day, from_columns, random_market

from agents import validate
from agents.state import STATE
from agents.validate import CONTROL, DUPLICATE, OUTCOMES, OUTLIER_BPS, OUTLIER_SCALE, SKIPPED
from agents.windows import Windows
from stream.records import FLAG_WARMING, TICK, Mark, Records, Reject, TickKind, empty_ticks, encode_symbol
from stream.settings import Settings

nan, inf = np.nan, np.inf
Make = Callable[[Feed], Records]


def judge(*ticks: Records, room: int = 16, **options: Any) -> list[str]:
    """Return the names of the outcomes of ticks that come one after the other, each in a block of its own."""
    windows = Windows(LATENESS_NS, FUTURE_NS, room, **options)
    return [
        OUTCOMES[int(windows.step(tick, np.full(len(tick), offset)).reason[0])] for offset, tick in enumerate(ticks)
    ]


SINGLE: dict[str, tuple[str, Make]] = {
    "a trade": ("accepted", lambda feed: feed.trade("X", 100.0)),
    "a trade of nothing": ("accepted", lambda feed: feed.trade("X", 100.0, size=0.0)),
    "a trade without a price": ("not_finite", lambda feed: feed.trade("X", nan)),
    "a trade without a size": ("not_finite", lambda feed: feed.trade("X", 100.0, size=nan)),
    "a trade at an infinite price": ("not_finite", lambda feed: feed.trade("X", inf)),
    "a trade at minus infinity": ("not_finite", lambda feed: feed.trade("X", -inf)),
    "a trade of an infinite size": ("not_finite", lambda feed: feed.trade("X", 100.0, size=inf)),
    "a trade at nothing": ("not_positive", lambda feed: feed.trade("X", 0.0)),
    "a trade at minus nothing": ("not_positive", lambda feed: feed.trade("X", -0.0)),
    "a trade at a negative price": ("not_positive", lambda feed: feed.trade("X", -37.63)),
    "a trade of a negative size": ("negative_size", lambda feed: feed.trade("X", 100.0, size=-1.0)),
    "a trade at the largest double": ("out_of_range", lambda feed: feed.trade("X", 1.7e308)),
    "a trade at the smallest double": ("out_of_range", lambda feed: feed.trade("X", 5e-324)),
    "a trade of the largest size": ("out_of_range", lambda feed: feed.trade("X", 100.0, size=1.7e308)),
    "a trade at the highest price": ("accepted", lambda feed: feed.trade("X", 1e15, size=1e18)),
    "a trade at the lowest price": ("accepted", lambda feed: feed.trade("X", 1e-12)),
    "a quote": ("accepted", lambda feed: feed.quote("X", 99.0, 101.0)),
    "a locked quote": ("accepted", lambda feed: feed.quote("X", 100.0, 100.0)),
    "a quote without sizes": ("accepted", lambda feed: feed.quote("X", 99.0, 101.0, nan, nan)),
    "a quote of nothing": ("accepted", lambda feed: feed.quote("X", 99.0, 101.0, 0.0, 0.0)),
    "a crossed quote": ("crossed", lambda feed: feed.quote("X", 101.0, 99.0)),
    "an empty quote": ("not_finite", lambda feed: feed.quote("X", nan, nan)),
    "a quote with an infinite ask": ("not_finite", lambda feed: feed.quote("X", 99.0, inf)),
    "a quote with an infinite size": ("not_finite", lambda feed: feed.quote("X", 99.0, 101.0, inf)),
    "a quote with a bid of nothing": ("not_positive", lambda feed: feed.quote("X", 0.0, 101.0)),
    "a quote with a negative bid": ("not_positive", lambda feed: feed.quote("X", -1.0, 101.0)),
    "a quote of a negative size": ("negative_size", lambda feed: feed.quote("X", 99.0, 101.0, 1.0, -1.0)),
    "a quote that is too high": ("out_of_range", lambda feed: feed.quote("X", 99.0, 1e300)),
    "a quote that is too low": ("out_of_range", lambda feed: feed.quote("X", 1e-300, 101.0)),
    "a quote that is too large": ("out_of_range", lambda feed: feed.quote("X", 99.0, 101.0, 1e300)),
    "a first quote with a bid only": ("missing_side", lambda feed: feed.quote("X", 99.0, nan)),
    "a first quote with an ask only": ("missing_side", lambda feed: feed.quote("X", nan, 101.0)),
    "neither trade nor quote": ("bad_kind", lambda feed: feed.trade("X", 100.0, kind=0)),
    "a kind of the future": ("bad_kind", lambda feed: feed.trade("X", 100.0, kind=5)),
    "at the limit of the skew": (
        "accepted",
        lambda feed: feed.trade("X", 1.0, event_ns=feed.now_ns + FUTURE_NS + 1000),
    ),
    "beyond the skew": ("future", lambda feed: feed.trade("X", 1.0, event_ns=feed.now_ns + FUTURE_NS + 2 * MS)),
    "never received": ("future", lambda feed: feed.trade("X", 1.0, recv_ns=0)),
    "before 1970": ("late", lambda feed: feed.trade("X", 1.0, event_ns=-(2**63))),
    "at the end of time": ("future", lambda feed: feed.trade("X", 1.0, event_ns=2**63 - 1)),
    "without a symbol": ("bad_symbol", lambda feed: feed.trade("", 100.0)),
}


@pytest.mark.parametrize("case", SINGLE)
def test_each_case_has_its_outcome(case: str) -> None:
    outcome, make = SINGLE[case]
    assert judge(make(Feed())) == [outcome]
    # It is the same for a symbol that is known, apart from what a known book completes.
    feed = Feed()
    known = judge(feed.quote("X", 99.0, 101.0), make(feed), outlier_bps=inf)
    assert known == ["accepted", "accepted" if outcome == "missing_side" else outcome]


@pytest.mark.parametrize("symbol", ["A B", "A\n", "\x7f", "a\x00b", "\x00a"])
def test_a_symbol_that_cannot_be_written_is_refused(symbol: str) -> None:
    assert judge(Feed().trade(symbol, 100.0)) == ["bad_symbol"]


@given(st.binary(min_size=24, max_size=24))
def test_the_kernel_takes_the_symbols_that_sources_can_encode(raw: bytes) -> None:
    tick = Feed().trade("X", 100.0)
    tick["symbol"] = raw
    symbol = raw.rstrip(b"\0").decode("latin-1")
    try:
        encode_symbol(symbol)
    except ValueError:
        raise
    except Exception:  # noqa: BLE001  (a RecordError: the source refuses it)
        assert judge(tick) == ["bad_symbol"]
    else:
        assert judge(tick) == ["accepted"]


@pytest.mark.parametrize("symbol", ["!", "~", "A" * 24, "BRK.B", "SPY261120C00500000"])
def test_a_symbol_of_any_length_is_kept_whole(symbol: str) -> None:
    windows = Windows(LATENESS_NS, FUTURE_NS, 4)
    windows.step(Feed().trade(symbol, 100.0), np.zeros(1, np.int64))
    assert windows.states["symbol"][0] == symbol.encode()


def test_a_missing_side_is_the_last_one() -> None:
    feed = Feed()
    book = feed.quote("X", 99.0, 101.0)
    assert judge(book, feed.quote("X", 99.5, nan), feed.quote("X", nan, 100.0)) == ["accepted"] * 3
    feed = Feed()
    # A new bid above the ask that stands is a crossed book, until the ask follows.
    outcomes = judge(feed.quote("X", 99.0, 101.0), feed.quote("X", 102.0, nan), feed.quote("X", 102.0, 103.0))
    assert outcomes == ["accepted", "crossed", "accepted"]


def test_late_is_measured_from_the_newest_tick_of_the_symbol() -> None:
    feed = Feed()
    newest = feed.trade("X", 100.0)
    at_ns = feed.now_ns
    outcomes = judge(
        newest,
        feed.trade("X", 100.0, event_ns=at_ns - LATENESS_NS),
        feed.trade("X", 100.0, event_ns=at_ns - LATENESS_NS - 1),
        feed.trade("Y", 100.0, event_ns=at_ns - LATENESS_NS - 1),
        feed.trade("X", 100.0, event_ns=at_ns),
    )
    assert outcomes == ["accepted", "accepted", "late", "accepted", "accepted"]


def test_the_verdict_on_the_future_does_not_depend_on_when_it_is_given() -> None:
    # It is recv_ns that decides. The lane's own clock once did: after a crash the block comes again, later, and
    # what had been refused was accepted, so that all later seq of the symbol meant something else.
    feed = Feed()
    ahead = feed.trade("X", 100.0, event_ns=feed.now_ns + FUTURE_NS + 2 * MS)
    assert [judge(ahead), judge(ahead)] == [["future"], ["future"]]
    recorded = feed.trade("X", 100.0, event_ns=10, recv_ns=20)  # a recording of 1970
    assert judge(recorded) == ["accepted"]


def test_a_repeated_number_is_a_duplicate() -> None:
    feed = Feed()
    first, second = feed.trade("X", 100.0), feed.trade("X", 101.0)
    assert judge(first, first, second, first, second) == [
        "accepted",
        "duplicate",
        "accepted",
        "duplicate",
        "duplicate",
    ]
    # Gaps are legal, and each symbol counts for itself.
    assert (
        judge(first, feed.trade("Y", 1.0, source_seq=1), feed.trade("X", 101.0, source_seq=900)) == ["accepted"] * 3
    )


def test_a_rejected_tick_that_comes_again_is_a_duplicate_where_its_content_is_sound() -> None:
    feed = Feed()
    good, crossed = feed.trade("X", 100.0), feed.quote("X", 101.0, 99.0)
    assert judge(good, crossed, crossed) == ["accepted", "crossed", "duplicate"]
    # Its number counts for nothing in garbage, so its copy is garbage once more, until the numbers have passed it.
    garbage, later = feed.trade("X", nan), feed.trade("X", 100.0)
    assert judge(good, garbage, garbage, later, garbage) == [
        "accepted",
        "not_finite",
        "not_finite",
        "accepted",
        "duplicate",
    ]


def test_another_stream_has_numbers_of_its_own() -> None:
    first, second = Feed(stream_id=1), Feed(stream_id=2)
    assert judge(first.trade("X", 100.0), second.trade("X", 101.0), second.trade("X", 102.0)) == ["accepted"] * 3


def test_the_first_number_of_a_stream_may_be_zero() -> None:
    assert judge(Feed(stream_id=0).trade("X", 100.0, source_seq=0)) == ["accepted"]
    assert judge(Feed().trade("X", 100.0, source_seq=2**64 - 1, stream_id=2**32 - 1)) == ["accepted"]


def test_garbage_takes_no_room_from_symbols_that_come_later() -> None:
    # Each rejected tick once made a row for its symbol, and the lane was full of nothing.
    feed = Feed()
    garbage = [feed.trade(f"GARBAGE-{number}", nan) for number in range(50)]
    good = [feed.trade(f"SYM{number}", 100.0) for number in range(16)]
    outcomes = judge(*garbage, *good, feed.trade("ONE-MORE", 100.0), feed.trade("SYM3", 101.0))
    assert outcomes == ["not_finite"] * 50 + ["accepted"] * 16 + ["too_many_symbols", "accepted"]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.binary(min_size=104, max_size=104), min_size=1, max_size=30))
def test_garbage_never_changes_another_symbol(seed: int, raw: list[bytes]) -> None:
    rng = np.random.default_rng(seed)
    good = random_market(rng, 300, symbols=3)
    garbage = np.frombuffer(b"".join(raw), TICK).copy()
    garbage["symbol"] = rng.choice(np.array([b"OTHER", b"\xff", b"", b"SYM0\0\0\0\0X"], "S24"), len(garbage))
    mixed = np.concatenate([good, garbage])[rng.permutation(len(good) + len(garbage))]
    mixed[np.isin(mixed["symbol"], good["symbol"])] = good
    clean, dirty = Windows(LATENESS_NS, FUTURE_NS, 16), Windows(LATENESS_NS, FUTURE_NS, 16)
    clean.step(good, np.zeros(len(good), np.int64))
    dirty.step(mixed, np.zeros(len(mixed), np.int64))
    for symbol in np.unique(good["symbol"]):
        expected, got = clean.row_of(symbol), dirty.row_of(symbol)
        assert expected is not None
        assert got is not None
        assert clean.states[expected].tobytes() == dirty.states[got].tobytes()


def test_a_symbol_counts_what_it_did_not_use() -> None:
    windows = Windows(LATENESS_NS, FUTURE_NS, 4)
    feed = Feed()
    good = feed.trade("X", 100.0)
    ticks = [good, feed.trade("X", nan), feed.trade("X", -1.0), good, feed.trade("X", 101.0)]
    windows.step(np.concatenate(ticks), np.zeros(5, np.int64))
    state = windows.states[0]
    assert (state["seq"], state["rejected"], state["duplicates"]) == (2, 2, 1)
    assert state["rejects"][[Reject.NOT_FINITE, Reject.NOT_POSITIVE]].tolist() == [1, 1]
    assert state["rejects"].sum() == 2
    assert state["source_seq"] == 4
    assert state["stream_id"] == 1


def test_every_outcome_has_a_name() -> None:
    assert set(OUTCOMES) == {0, CONTROL, DUPLICATE, SKIPPED, *(reason.value for reason in Reject)}
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)
    assert max(Reject) < CONTROL  # outcomes travel as one byte
    assert max(Reject) < STATE["rejects"].shape[0]
    assert max(Mark) < 1 << STATE["marks"].shape[0]
    assert sum(Mark) & FLAG_WARMING == 0


def test_the_settings_say_what_a_lane_has_by_default() -> None:
    assert (Settings().outlier_bps, Settings().outlier_scale) == (OUTLIER_BPS, OUTLIER_SCALE)


def test_every_reason_and_every_mark_stands_in_the_policy() -> None:
    assert validate.__doc__ is not None
    rows = {line.split("|")[1].strip() for line in validate.__doc__.splitlines() if line.startswith("| ")}
    assert {item.name for kind in (Reject, Mark) for item in kind} <= rows


def recorded(path: Path, kind: TickKind) -> Records:
    rows = pq.read_table(path).to_pandas().sort_values(["ts_ns", "seq"], kind="stable")
    rows["kind"] = kind.value
    ticks = from_columns("RECORDED", rows)
    ticks["symbol"] = rows["symbol"].to_numpy().astype("S24")
    if "exch_ts_ns" in rows:
        ticks["event_ns"] = rows["exch_ts_ns"]
    return ticks


def outcomes_of(ticks: Records, windows: Windows | None = None) -> tuple[Counter[str], np.ndarray, np.ndarray]:
    """Return the outcomes counted, the reason of each tick, and the marks of each accepted one."""
    windows = windows or Windows(LATENESS_NS, FUTURE_NS, 64)
    step = windows.step(ticks, np.zeros(len(ticks), np.int64))
    return Counter(OUTCOMES[int(code)] for code in step.reason), step.reason.copy(), step.marks.copy()


@pytest.mark.parametrize("day", ["20140501", "20140502", "20140506"])
def test_a_tenth_of_the_quotes_of_a_venue_is_crossed_and_the_others_are_used(shared_data: Path, day: str) -> None:
    path = shared_data / "ticks" / "fx" / f"quotes_EURUSD_fxcm_{day}.parquet"
    quotes = pq.read_table(path).to_pandas()
    crossed = int((quotes["bid"] > quotes["ask"]).sum())
    assert crossed > 0.05 * len(quotes)
    ticks = recorded(path, TickKind.QUOTE)
    counts, reason, marks = outcomes_of(ticks)
    assert counts == {"accepted": len(quotes) - crossed, "crossed": crossed}
    assert ((reason == Reject.CROSSED) == (ticks["bid"] > ticks["ask"])).all()
    assert (marks == Mark.LOCKED).sum() == (quotes["bid"] == quotes["ask"]).sum() > 1000
    assert set(marks.tolist()) == {0, Mark.LOCKED}


def test_trades_of_size_zero_are_used_and_marked(shared_data: Path) -> None:
    ticks = recorded(shared_data / "ticks" / "futures" / "trades_GC_20131007.parquet", TickKind.TRADE)
    counts, _, marks = outcomes_of(ticks)
    assert counts == {"accepted": len(ticks)}
    assert (marks == Mark.ZERO_SIZE).sum() == (ticks["size"] == 0).sum() == 147


@pytest.mark.parametrize("symbol", ["btcusdt", "ethusdt"])
def test_a_receiver_whose_clock_runs_behind_is_marked_or_refused_as_the_setting_says(
    shared_data: Path, symbol: str
) -> None:
    path = shared_data / "ticks" / "crypto" / f"trades_binance_usdm_{symbol}_20240808.parquet"
    ticks = recorded(path, TickKind.TRADE)
    behind_ns = ticks["event_ns"] - ticks["recv_ns"]
    assert behind_ns.min() > 1_000 * MS
    counts, _, marks = outcomes_of(ticks)
    assert counts == {"accepted": len(ticks)}
    assert ((marks & Mark.CLOCK_SKEW) != 0).all()
    newest = np.maximum.accumulate(ticks["event_ns"])
    assert (((marks & Mark.OUT_OF_ORDER) != 0) == (ticks["event_ns"] < newest)).all()
    limit_ns = int(np.median(behind_ns))
    counts, reason, _ = outcomes_of(ticks, Windows(LATENESS_NS, limit_ns, 4))
    assert ((reason == Reject.FUTURE) == (behind_ns > limit_ns)).all()
    assert set(counts) == {"accepted", "future"}


@pytest.mark.parametrize(("symbol", "crossed"), [("AIG", 94), ("BAC", 0)])
def test_a_day_of_a_stock_is_used_but_for_its_crossed_quotes(shared_data: Path, symbol: str, crossed: int) -> None:
    ticks = equity_day(shared_data, symbol, "20131007", 10**9)
    counts, reason, marks = outcomes_of(ticks)
    assert counts == {"accepted": len(ticks) - crossed} | ({"crossed": crossed} if crossed else {})
    used = ticks[reason == 0]
    assert ((marks == Mark.LOCKED) == (used["bid"] == used["ask"])).all()
    assert set(marks.tolist()) == {0, Mark.LOCKED}


@pytest.mark.parametrize("name", ["crypto/quotes_binance_spot_btcusdt_20240808", "fx/quotes_XAUUSD_oanda_20140506"])
def test_no_quote_of_a_clean_venue_is_refused(shared_data: Path, name: str) -> None:
    path = shared_data / "ticks" / f"{name}.parquet"
    rows = (
        pq.read_table(path)
        .to_pandas()
        .sort_values(["ts_ns", "seq"], kind="stable")
        .drop(columns="exch_ts_ns", errors="ignore")
    )
    rows["kind"] = TickKind.QUOTE.value
    counts, _, _ = outcomes_of(from_columns("CLEAN", rows))
    assert counts == {"accepted": len(rows)}


def test_one_sided_rows_of_a_recording_complete_each_other(shared_data: Path) -> None:
    """The tape has the bid and the ask in rows of their own; each keeps the other side."""
    whole = recorded(shared_data / "ticks" / "us_equity" / "quotes_AIG_20131007.parquet", TickKind.QUOTE)[:20_000]
    rows = empty_ticks(2 * len(whole))
    for name in TICK.names or ():
        rows[name] = np.repeat(whole[name], 2)
    rows["source_seq"] = np.arange(1, len(rows) + 1)
    for side, start in (("bid", 1), ("ask", 0)):
        rows[side][start::2] = np.nan
        rows[f"{side}_size"][start::2] = np.nan
    windows = Windows(LATENESS_NS, FUTURE_NS, 4)
    counts, _, marks = outcomes_of(rows, windows)
    # The first ask-row of a day has no bid yet; a bid that steps over the standing ask waits for it.
    assert set(counts) <= {"accepted", "missing_side", "crossed"}
    assert counts["missing_side"] == 1
    assert counts["crossed"] < 0.05 * len(rows)
    assert ((marks & Mark.CARRIED) != 0).all()
    state = windows.states[0]
    assert (state["bid"], state["ask"]) == (whole["bid"][-1], whole["ask"][-1])
    assert (state["bid_size"], state["ask_size"]) == (whole["bid_size"][-1], whole["ask_size"][-1])
