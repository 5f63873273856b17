"""Numbers, levels, halts and marks: what a verdict depends on beyond the tick, and that it is always the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, MS, Feed, cut, equity_day, from_columns, random_market

from agents.state import STATE
from agents.validate import CONTROL, DUPLICATE, OUTCOMES, SKIPPED
from agents.windows import Windows
from stream.records import Mark, Records, Reject, TickKind

nan = np.nan
HOUR_NS = 3600 * 1000 * MS
SPIN = 1 << 48  # numbers that no stream skips at once


class Verdicts:
    """Windows that say what became of each tick."""

    def __init__(self, **options: Any) -> None:
        self.windows = Windows(LATENESS_NS, FUTURE_NS, 64, **options)
        self.offset = -1

    def of(self, *ticks: Records) -> list[str]:
        """Return the outcome of each tick; of an accepted one with marks, the marks."""
        told = []
        for tick in ticks:
            self.offset += 1
            step = self.windows.step(tick, np.array([self.offset]))
            marks = [mark.name.lower() for mark in Mark if step.marks.size and int(step.marks[0]) & mark]
            told.append("+".join(marks) if marks else OUTCOMES[int(step.reason[0])])
        return told

    def state(self, symbol: bytes = b"X") -> Any:
        row = self.windows.row_of(symbol)
        assert row is not None
        return self.windows.states[row]


def test_each_mark_is_told() -> None:
    feed = Feed()
    verdicts = Verdicts()
    assert verdicts.of(
        feed.quote("X", 99.0, 101.0),
        feed.trade("X", 100.0, event_ns=feed.now_ns),
        feed.quote("X", 100.0, 100.0),
        feed.trade("X", 100.0, size=0.0),
        feed.quote("X", 99.0, nan),
        feed.quote("X", nan, 101.0),
        feed.trade("X", 100.0, event_ns=feed.now_ns + 1000 * MS),
        feed.quote("X", nan, 99.0, event_ns=feed.now_ns + 500 * MS),
    ) == [
        "accepted",
        "accepted",
        "locked",
        "zero_size",
        "carried",
        "carried",
        "clock_skew",
        "out_of_order+locked+carried+clock_skew",
    ]
    assert verdicts.state()["marks"].tolist() == [0, 1, 2, 1, 3, 2, 0, 0]
    assert verdicts.state()["rejects"].sum() == 0


# Numbers.


@pytest.mark.parametrize(
    "garbage",
    [{"price": nan}, {"price": -1.0}, {"size": -1.0}, {"price": 1e300}, {"kind": 77}, {"event_ns": 1 << 62}],
)
def test_garbage_with_a_huge_number_silences_nobody(garbage: dict[str, Any]) -> None:
    feed = Feed()
    bad = {"price": 100.0, "size": 1.0, "source_seq": 2**63} | garbage
    ticks = [feed.trade("X", 100.0), feed.trade("X", **bad), feed.trade("X", 100.0), feed.trade("X", 100.0)]
    outcomes = Verdicts().of(*ticks)
    assert outcomes[1] not in ("accepted", "duplicate")
    assert outcomes[:1] + outcomes[2:] == ["accepted"] * 3


def test_a_sound_tick_with_an_impossible_number_silences_nobody() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 100.0), feed.trade("X", 100.0, source_seq=2 + SPIN), feed.trade("X", 100.0)]
    assert Verdicts().of(*ticks) == ["accepted", "bad_sequence", "accepted"]
    feed = Feed()
    assert Verdicts().of(feed.trade("X", 100.0), feed.trade("X", 100.0, source_seq=SPIN)) == ["accepted"] * 2


def test_a_wrong_number_that_is_possible_costs_seven_ticks_and_no_more() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 100.0), feed.trade("X", 100.0, source_seq=10**12)]
    ticks += [feed.trade("X", 100.0) for _ in range(12)]
    verdicts = Verdicts()
    assert verdicts.of(*ticks) == ["accepted"] * 2 + ["bad_sequence"] * 7 + ["accepted"] * 5
    assert verdicts.state()["source_seq"] == 14
    assert verdicts.of(*ticks[-5:]) == ["duplicate"] * 5


def test_numbers_that_do_not_agree_are_never_a_new_numbering() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 100.0, source_seq=10**6)]
    ticks += [feed.trade("X", 100.0, source_seq=500 - number) for number in range(50)]
    assert Verdicts().of(*ticks) == ["accepted"] + ["bad_sequence"] * 50


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 299), st.integers(1, 60)), max_size=6))
def test_what_a_source_sends_again_changes_nothing(seed: int, repeats: list[tuple[int, int]]) -> None:
    # But for a number that is wrong and possible: its copy comes, for all we know, after a real gap.
    market = random_market(np.random.default_rng(seed), 300, symbols=2)
    ticks = dirty(np.random.default_rng(seed), market, halts=False)
    again = list(range(len(ticks)))
    for end, count in sorted(repeats, reverse=True):
        again[end + 1 : end + 1] = range(max(end + 1 - count, 0), end + 1)
    once, twice = Windows(LATENESS_NS, FUTURE_NS, 4), Windows(LATENESS_NS, FUTURE_NS, 4)
    expected = once.step(ticks, np.zeros(len(ticks), np.int64))
    got = twice.step(ticks[again], np.zeros(len(again), np.int64))
    assert got.features.tobytes() == expected.features.tobytes()
    assert got.marks.tolist() == expected.marks.tolist()
    # A copy is a duplicate, or what it was.
    first = np.unique(again, return_index=True)[1]
    assert got.reason[first].tolist() == expected.reason.tolist()
    copies = np.setdiff1d(np.arange(len(again)), first)
    same = got.reason[copies] == expected.reason[np.array(again)[copies]]
    unsound = np.isin(got.reason[copies], [0, Reject.CROSSED, Reject.LATE, Reject.OUTLIER, Reject.MISSING_SIDE])
    assert (
        (same & ~unsound) | (got.reason[copies] == DUPLICATE) | (got.reason[copies] == Reject.BAD_SEQUENCE)
    ).all()


# Levels.


@pytest.mark.parametrize("factor", [10.0, 0.1, 100.0, 0.01, 1000.0])
def test_a_lost_decimal_point_is_refused_at_once_also_after_a_long_silence(factor: float) -> None:
    feed = Feed()
    verdicts = Verdicts()
    assert verdicts.of(feed.trade("X", 49.18), feed.trade("X", 49.18 * factor)) == ["accepted", "outlier"]
    feed.now_ns += 30 * 24 * HOUR_NS
    assert verdicts.of(feed.trade("X", 49.18 * factor), feed.trade("X", 49.2)) == ["outlier", "accepted"]


def test_a_decimal_point_lost_in_one_side_of_a_quote_is_refused() -> None:
    feed = Feed()
    quotes = [feed.quote("X", 49.17, 49.19), feed.quote("X", 4.917, 49.19), feed.quote("X", 49.17, 491.9)]
    one_sided = [feed.quote("X", 4.917, nan), feed.quote("X", nan, 491.9), feed.quote("X", 49.17, nan)]
    verdicts = Verdicts()
    assert verdicts.of(*quotes, *one_sided) == ["accepted"] + ["outlier"] * 4 + ["carried"]
    assert (verdicts.state()["bid"], verdicts.state()["ask"]) == (49.17, 49.19)


def test_the_fifth_outlier_that_agrees_is_a_new_level() -> None:
    feed = Feed()
    verdicts = Verdicts()
    split = [feed.trade("X", price) for price in (100.0, 50.0, 50.2, 49.9, 50.1, 50.0, 50.1)]
    assert verdicts.of(*split) == ["accepted"] + ["outlier"] * 4 + ["level_shift", "accepted"]
    assert verdicts.of(feed.trade("X", 100.0)) == ["outlier"]
    assert verdicts.state()["rejects"][Reject.OUTLIER] == 5
    assert verdicts.state()["marks"][6] == 1


def test_a_first_price_that_is_wrong_is_put_right() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 4918.0)] + [feed.trade("X", 49.18) for _ in range(6)]
    assert Verdicts().of(*ticks) == ["accepted"] + ["outlier"] * 4 + ["level_shift", "accepted"]


def test_outliers_that_disagree_or_are_interrupted_never_are_a_level() -> None:
    feed = Feed()
    wild = [feed.trade("X", 100.0)] + [feed.trade("X", price) for price in (10.0, 1000.0) * 20]
    assert Verdicts().of(*wild) == ["accepted"] + ["outlier"] * 40
    feed = Feed()
    mixed = [feed.trade("X", price) for price in (100.0, 10.0, 10.0, 10.0, 10.0) * 10]
    assert Verdicts().of(*mixed) == (["accepted"] + ["outlier"] * 4) * 10


def test_a_copy_of_an_outlier_does_not_confirm_it() -> None:
    feed = Feed()
    verdicts = Verdicts()
    wild = feed.trade("X", 1000.0)
    assert (
        verdicts.of(feed.trade("X", 100.0, source_seq=0), wild, *[wild] * 9)
        == ["accepted", "outlier"] + ["duplicate"] * 9
    )


def test_an_outlier_does_not_widen_its_own_band() -> None:
    feed = Feed()
    verdicts = Verdicts()
    verdicts.of(*(feed.trade("X", 100.0 + 0.01 * (number % 2)) for number in range(300)))
    before = float(verdicts.state()["level_scale"])
    assert before == pytest.approx(1e-4, rel=0.02)  # one cent in 100
    verdicts.of(*(feed.trade("X", price) for price in (1000.0, 100.0) * 50))
    assert verdicts.state()["level_scale"] <= before
    # Nor do jumps that the band just lets through widen it by more than a few of their like at a time.
    verdicts.of(feed.trade("X", 104.9))
    assert verdicts.state()["level_scale"] < 1.1 * before


def test_a_volatile_symbol_has_a_wider_band() -> None:
    rng = np.random.default_rng(3)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 800)))  # 2 % from tick to tick: 50 of them are a doubling
    feed = Feed()
    outcomes = Verdicts().of(*(feed.trade("X", value) for value in price))
    assert outcomes[300:] == ["accepted"] * 500
    assert Verdicts(outlier_scale=0.0).of(*(feed.trade("X", value) for value in price)).count("outlier") > 3


def test_a_silence_widens_the_band() -> None:
    feed = Feed()
    verdicts = Verdicts()
    assert verdicts.of(feed.trade("X", 100.0), feed.trade("X", 107.0)) == ["accepted", "outlier"]
    feed.now_ns += 1 * HOUR_NS
    assert verdicts.of(feed.trade("X", 107.0), feed.trade("X", 114.0)) == ["accepted", "outlier"]


def test_the_settings_say_how_wide_the_band_is() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 100.0), feed.trade("X", 103.0), feed.trade("X", 9.0)]
    assert Verdicts(outlier_bps=200).of(*ticks) == ["accepted", "outlier", "outlier"]
    assert Verdicts(outlier_bps=1e9).of(*ticks) == ["accepted"] * 3


@pytest.mark.parametrize("symbol", ["AIG", "BAC"])
def test_errors_in_a_real_day_are_found_and_leave_no_trace(shared_data: Path, symbol: str) -> None:
    day = equity_day(shared_data, symbol, "20131007", 200_000)
    rng = np.random.default_rng(7)
    at = np.sort(rng.choice(np.arange(100, len(day)), 500, replace=False))
    errors = day[at].copy()
    factor = rng.choice([10.0, 0.1, 100.0, 0.01], len(at))
    is_trade = errors["kind"] == TickKind.TRADE
    for name, rows in (("price", is_trade), ("bid", ~is_trade), ("ask", ~is_trade)):
        errors[name][rows] *= factor[rows]
    mixed = np.insert(day, at, errors)
    mixed["source_seq"] = np.arange(1, len(mixed) + 1)
    is_error = np.zeros(len(mixed), np.bool_)
    is_error[at + np.arange(len(at))] = True
    clean, dirty_ = Windows(LATENESS_NS, FUTURE_NS, 4), Windows(LATENESS_NS, FUTURE_NS, 4)
    expected = clean.step(day, np.zeros(len(day), np.int64))
    got = dirty_.step(mixed, np.zeros(len(mixed), np.int64))
    crossed = errors["bid"] > errors["ask"]
    assert (got.reason[is_error] == np.where(crossed, Reject.CROSSED, Reject.OUTLIER)).all()
    assert got.reason[~is_error].tolist() == expected.reason.tolist()
    assert got.features.tobytes() == expected.features.tobytes()


# The closes that are refused, by row: single errors at once, the first four of a series of them or of a real split,
# and in the last one a day on which a stock rose by 70 %.
YAHOO = {
    "LA-V-1d-bad-stock-split": [16],
    "MOB-ST-1d-bad-stock-split": [9],
    "CNE-L-1d-bad-stock-split": [2, 7, 8, 9],
    "SSW-JO-1d-100x-error": [22, 23, 24, 25],
    "SPM-MI-1d-bad-stock-split": [13, 14, 15, 16, 19, 20],
}


@pytest.mark.parametrize("name", YAHOO)
def test_a_vendors_price_errors_are_refused(shared_data: Path, name: str) -> None:
    folder = shared_data / "payloads" / "yahoo_bad_prices"
    bad, good = (
        pd.read_csv(folder / f"{name}{end}.csv").sort_values("Date").reset_index() for end in ("", "-fixed")
    )
    rows = pd.DataFrame({"price": bad["Close"], "size": 1.0, "kind": TickKind.TRADE.value})
    rows["ts_ns"] = pd.to_datetime(bad["Date"], utc=True).astype("datetime64[ns, UTC]").astype("int64")
    windows = Windows(LATENESS_NS, FUTURE_NS, 4)
    reason = windows.step(from_columns("X", rows), np.zeros(len(rows), np.int64)).reason
    assert set(reason.tolist()) == {0, Reject.OUTLIER}
    assert np.flatnonzero(reason).tolist() == YAHOO[name]
    wrong = np.flatnonzero((bad["Close"] / good["Close"] - 1).abs() > 0.2)
    if len(wrong) == 1:
        assert reason[wrong[0]] == Reject.OUTLIER


# Halts.


def control(feed: Feed, kind: TickKind, symbol: str, event_ns: int) -> Records:
    return feed.trade(symbol, nan, nan, kind=kind, event_ns=event_ns, recv_ns=event_ns, source_seq=0, stream_id=0)


def at(feed: Feed, event_ns: int, price: float = 100.0, symbol: str = "X") -> Records:
    return feed.trade(symbol, price, event_ns=event_ns, recv_ns=event_ns)


def test_a_halted_symbol_is_refused_by_the_time_at_which_its_ticks_happened() -> None:
    feed = Feed()
    start = feed.now_ns
    halt = control(feed, TickKind.HALT, "X", start + 10)
    resume = control(feed, TickKind.RESUME, "X", start + 20)
    crossed = feed.quote("X", 101.0, 99.0, event_ns=start + 12)
    one_sided = feed.quote("X", 99.0, nan, event_ns=start + 13)
    told = {
        "before the halt": (at(feed, start + 9), "accepted"),
        "the halt": (halt, "control"),
        "before it, and late": (at(feed, start + 8), "out_of_order"),
        "at the halt": (at(feed, start + 10), "halted"),
        "crossed": (crossed, "halted"),
        "one-sided": (one_sided, "halted"),
        "another symbol": (at(feed, start + 14, symbol="Y"), "accepted"),
        "the halt once more": (halt, "control"),
        "the resume": (resume, "control"),
        "in between, and late": (at(feed, start + 19), "halted"),
        "at the resume": (at(feed, start + 20), "accepted"),
        "the halt comes late": (halt, "control"),
        "after all": (at(feed, start + 21), "accepted"),
    }
    for tick, _ in told.values():
        tick["source_seq"] = feed.source_seq = feed.source_seq + 1
    outcomes = Verdicts().of(*(tick for tick, _ in told.values()))
    assert dict(zip(told, outcomes, strict=True)) == {case: outcome for case, (_, outcome) in told.items()}


def test_a_symbol_can_be_halted_before_its_first_tick() -> None:
    feed = Feed()
    verdicts = Verdicts()
    now = feed.now_ns
    zero = feed.trade("X", 100.0, source_seq=0, stream_id=0, event_ns=now + 300 * MS, recv_ns=now + 300 * MS)
    assert verdicts.of(
        control(feed, TickKind.HALT, "X", now),
        feed.trade("X", 100.0),
        control(feed, TickKind.RESUME, "X", now + 200 * MS),
        zero,
        zero,
    ) == ["control", "halted", "control", "accepted", "duplicate"]


def test_a_control_tick_touches_nothing_else() -> None:
    feed = Feed()
    verdicts = Verdicts()
    verdicts.of(feed.quote("X", 99.0, 101.0), feed.trade("X", 100.0))
    before = verdicts.state().copy()
    later = feed.now_ns + 1000 * MS
    verdicts.of(control(feed, TickKind.HALT, "X", later), control(feed, TickKind.RESUME, "X", later + MS))
    after = verdicts.state().copy()
    assert (after["halt_ns"], after["resume_ns"]) == (later, later + MS)
    for name in ("halt_ns", "resume_ns", "offset"):
        before[name] = after[name]
    assert before.tobytes() == after.tobytes()


def test_a_halt_in_the_future_or_without_a_symbol_is_refused() -> None:
    feed = Feed()
    far = feed.trade("X", nan, kind=TickKind.HALT, event_ns=1 << 62)
    assert Verdicts().of(far, feed.trade("", nan, kind=TickKind.HALT), feed.trade("X", 100.0)) == [
        "future",
        "bad_symbol",
        "accepted",
    ]


@given(
    st.lists(st.tuples(st.sampled_from([TickKind.HALT, TickKind.RESUME]), st.integers(1, 20)), min_size=1),
    st.randoms(),
)
def test_halts_may_come_in_any_order_and_any_number_of_times(told: list[tuple[TickKind, int]], random: Any) -> None:
    feed = Feed()
    start = feed.now_ns
    shuffled = told + random.choices(told, k=3)
    random.shuffle(shuffled)
    ends = []
    for order in (told, shuffled):
        verdicts = Verdicts()
        verdicts.of(*(control(feed, kind, "X", start + at * MS) for kind, at in order))
        ends.append((int(verdicts.state()["halt_ns"]), int(verdicts.state()["resume_ns"])))
    assert ends[0] == ends[1]


# Always the same verdict.


def dirty(rng: np.random.Generator, market: Records, halts: bool = True) -> Records:
    """Return a market with what the policy tells of in 15 % of its ticks; with ``halts`` also
    halts, and numbers that are wrong and possible."""
    ticks = market.copy()
    for position in np.flatnonzero(rng.random(len(ticks)) < 0.15):
        tick = ticks[position]
        match rng.integers(0, 8 if halts else 6):
            case 0 | 1:
                run = ticks[position : position + rng.integers(1, 8)]
                for name in ("price", "bid", "ask"):
                    run[name] *= 10.0
            case 2:
                tick["source_seq"] = rng.choice([1, 5, 2**63] + [10**9] * halts)
            case 3:
                tick["event_ns"] += int(rng.choice([-HOUR_NS, HOUR_NS, 1000 * MS, -1000 * MS]))
            case 4:
                tick["price"] = tick["bid"] = rng.choice([nan, -1.0, 0.0, 1e300])
            case 5:
                tick["recv_ns"] = tick["event_ns"] - 2 * MS
            case 6:
                tick["kind"] = TickKind.HALT
            case _:
                tick["kind"] = TickKind.RESUME
    return ticks


def test_the_dirty_market_has_a_case_of_everything() -> None:
    seen: set[str] = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        windows = Windows(LATENESS_NS, FUTURE_NS, 4)
        windows.step(dirty(rng, random_market(rng, 2000, symbols=2, bad=0.05)), np.zeros(2000, np.int64))
        seen |= {OUTCOMES[int(code)] for code in np.flatnonzero(windows.outcomes)}
        seen |= {mark.name.lower() for mark in Mark if windows.states["marks"][:, int(mark).bit_length() - 1].any()}
    missing = (set(OUTCOMES.values()) | {mark.name.lower() for mark in Mark}) - seen
    assert missing == {"already_applied", "unknown_symbol", "wrong_partition", "too_many_symbols", "negative_size"}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 399), max_size=12))
def test_no_verdict_depends_on_how_ticks_were_cut(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    ticks = dirty(rng, random_market(rng, 400, symbols=3, bad=0.05))
    whole, pieces = Windows(LATENESS_NS, FUTURE_NS, 8), Windows(LATENESS_NS, FUTURE_NS, 8)
    expected = whole.step(ticks, np.zeros(len(ticks), np.int64))
    marks, reasons = [], []
    for offset, block in enumerate(cut(ticks, cuts)):
        step = pieces.step(block, np.full(len(block), offset))
        marks.append(step.marks.copy())
        reasons.append(step.reason.copy())
    assert np.concatenate(reasons).tolist() == expected.reason.tolist()
    assert np.concatenate(marks).tolist() == expected.marks.tolist()
    pieces.states["offset"] = whole.states["offset"]
    assert pieces.states.tobytes() == whole.states.tobytes()


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_a_replay_after_a_crash_gives_the_same_verdicts(seed: int, checkpoints: list[int]) -> None:
    """Each symbol's row is of a checkpoint of its own, and all blocks come again."""
    rng = np.random.default_rng(seed)
    blocks = np.split(dirty(rng, random_market(rng, 400, symbols=3, bad=0.05)), 10)
    undisturbed = Windows(LATENESS_NS, FUTURE_NS, 8)
    kept: dict[bytes, np.ndarray] = {}
    expected = []
    for offset, block in enumerate(blocks):
        expected.append(undisturbed.step(block, np.full(len(block), offset)).reason.copy())
        for number, checkpoint in enumerate(checkpoints):
            row = undisturbed.row_of(f"SYM{number}".encode())
            if checkpoint == offset and row is not None:
                kept[f"SYM{number}".encode()] = undisturbed.states[row : row + 1].copy()
    again = Windows(LATENESS_NS, FUTURE_NS, 8)
    again.load(np.concatenate([np.zeros(0, STATE), *kept.values()]))
    for offset, block in enumerate(blocks):
        got = again.step(block, np.full(len(block), offset)).reason
        assert (np.where(got == SKIPPED, expected[offset], got) == expected[offset]).all()
    for row in undisturbed.states[: undisturbed.count]:
        other = again.row_of(bytes(row["symbol"]))
        assert other is not None
        assert again.states[other].tobytes() == row.tobytes()
    assert CONTROL in np.concatenate(expected) or seed
