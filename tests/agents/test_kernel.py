"""The features are right at every tick: against a batch computation, published values, and at the extremes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from batch_features import batch_features
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, MS, START_NS, Feed, equity_day, from_columns, random_market

from agents import features
from agents.periods import Periods
from agents.windows import Windows
from stream.records import TICK, Records, Reject, TickKind, empty_ticks

COLUMN = {name: index for index, name in enumerate(features.NAMES)}
_BLOCK = 512
# float32 has 6e-8; what is below the floor is rounding noise of a difference of nearly equal numbers.
RELATIVE, FLOOR = 2e-7, 1e-8


def run(ticks: Records, windows: Windows | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the feature rows of the accepted ticks, and the reason for each tick."""
    windows = windows or Windows(LATENESS_NS, FUTURE_NS, outlier_bps=np.inf)
    rows, reasons = [], []
    for offset, start in enumerate(range(0, len(ticks), _BLOCK)):
        block = ticks[start : start + _BLOCK]
        step = windows.step(block, np.full(len(block), offset, np.int64))
        rows.append(step.features.copy())
        reasons.append(step.reason.copy())
    return np.concatenate(rows), np.concatenate(reasons)


def assert_equal_features(got: np.ndarray, expected: np.ndarray, first: int = 0) -> None:
    assert got.shape == expected.shape
    away = np.abs(got - expected) - RELATIVE * np.abs(expected) - FLOOR
    if (away > 0).any():
        row, column = np.unravel_index(np.argmax(away), away.shape)
        pytest.fail(
            f"{features.NAMES[column]} of tick {first + row} is {got[row, column]!r}; "
            f"the batch answer is {expected[row, column]!r}; {int((away > 0).sum())} values differ"
        )


@pytest.mark.parametrize("seed", range(8))
def test_every_feature_equals_the_batch_answer_at_every_tick(seed: int) -> None:
    ticks = random_market(np.random.default_rng(seed), 3000, symbols=3, bad=0.02 * (seed % 2))
    windows = Windows(LATENESS_NS, FUTURE_NS, outlier_bps=np.inf)
    rows, reasons = run(ticks, windows)
    accepted = reasons == 0
    assert accepted.sum() == len(rows) > 2000
    used = accepted | (reasons == Reject.MISSING_SIDE)
    for symbol in np.unique(ticks["symbol"][accepted]):
        of_symbol = used & (ticks["symbol"] == symbol)
        expected = batch_features(ticks[of_symbol], accepted[of_symbol])
        assert_equal_features(rows[ticks["symbol"][accepted] == symbol], expected)


@pytest.mark.parametrize("count", [1, 2, 3, 13, 14, 15, 16, 19, 20, 21, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129])
def test_every_feature_is_right_while_the_windows_fill(count: int) -> None:
    ticks = random_market(np.random.default_rng(count), count, symbols=1)
    rows, reasons = run(ticks)
    # One-sided quotes may cross what stands on the other side; such a tick changes nothing.
    used = np.isin(reasons, [0, Reject.MISSING_SIDE])
    assert_equal_features(rows, batch_features(ticks[used], reasons[used] == 0))


def test_every_feature_equals_the_batch_answer_on_a_recorded_day(shared_data: Path) -> None:
    ticks = equity_day(shared_data, "AIG", "20131007", 50_000)
    crossed = (ticks["kind"] == TickKind.QUOTE) & (ticks["bid"] > ticks["ask"])
    rows, reasons = run(ticks)
    assert (reasons == np.where(crossed, Reject.CROSSED, 0)).all()
    assert_equal_features(rows, batch_features(ticks[~crossed]))


def run_exactly(ticks: Records, windows: Windows, offset: int = 0) -> np.ndarray:
    """Return the features of the accepted ticks before they are rounded off, ``float64[A, F]``."""
    rows = []
    for index in range(len(ticks)):
        step = windows.step(ticks[index : index + 1], np.array([offset + index]))
        rows += [windows.exact.copy()] * len(step.rows)
    return np.array(rows)


def assert_exact(got: np.ndarray, expected: np.ndarray, names: tuple[str, ...] = features.NAMES) -> None:
    """Within 1e-9 of each other; a feature is a ratio times 1 to 1e4, so that below 1e-9 it is rounding noise."""
    assert got.shape == expected.shape
    away = np.abs(got - expected) / (1e-9 * np.abs(expected) + 1e-9)
    row, column = np.unravel_index(np.argmax(away), away.shape)
    assert away[row, column] <= 1, f"{names[column]} of {row}: {got[row, column]!r}, not {expected[row, column]!r}"


def test_every_feature_is_exact_at_every_tick_of_a_recorded_hour(shared_data: Path) -> None:
    ticks = equity_day(shared_data, "BAC", "20131007", 60_000)
    ticks = ticks[(ticks["kind"] == TickKind.TRADE) | (ticks["bid"] <= ticks["ask"])][-30_000:]
    assert_exact(run_exactly(ticks, Windows(LATENESS_NS, FUTURE_NS, outlier_bps=np.inf)), batch_features(ticks))


PERIODS = st.builds(
    Periods,
    tick_return_short=st.integers(2, 9),
    tick_return_long=st.integers(10, 64),
    tick_sma=st.integers(1, 64),
    tick_ema_fast=st.integers(1, 20),
    tick_ema_slow=st.integers(21, 200),
    tick_macd_signal=st.integers(1, 40),
    tick_rsi=st.integers(1, 100),
    tick_bollinger=st.integers(2, 64),
    tick_volatility=st.integers(2, 64),
    tick_channel=st.integers(2, 64),
    tick_flow=st.integers(1, 300),
    bar_sma=st.integers(1, 64),
    bar_ema_fast=st.integers(1, 10),
    bar_ema_slow=st.integers(11, 40),
    bar_macd_signal=st.integers(1, 12),
    bar_rsi=st.integers(1, 40),
    bar_bollinger=st.integers(2, 64),
    bar_atr=st.integers(1, 40),
    bar_roc=st.integers(1, 64),
    bar_channel=st.integers(2, 64),
    bar_volatility=st.integers(2, 64),
    windows_s=st.sampled_from([(1.0, 10.0, 60.0, 300.0), (0.01, 0.5, 2.0, 30.0)]),
    bars_s=st.sampled_from([(1.0, 60.0), (0.01, 0.7), (0.25, 5.0)]),
)


@settings(max_examples=40)
@given(periods=PERIODS, seed=st.integers(0, 2**32 - 1), count=st.sampled_from([1, 2, 30, 400, 1500]))
def test_every_feature_equals_the_batch_answer_for_any_periods(periods: Periods, seed: int, count: int) -> None:
    ticks = random_market(np.random.default_rng(seed), count, symbols=1)
    rows, reasons = run(ticks, Windows(LATENESS_NS, FUTURE_NS, periods=periods, outlier_bps=np.inf))
    used = np.isin(reasons, [0, Reject.MISSING_SIDE])
    if (reasons == 0).any():
        assert_equal_features(rows, batch_features(ticks[used], reasons[used] == 0, periods))


def test_nothing_drifts_in_ten_million_ticks() -> None:
    # The reference sees the last 130,000 ticks only: by then the longest memory, an EMA over 26 bars of some 100
    # ticks, has forgotten the rest.
    periods = Periods(windows_s=(0.1, 1.0, 5.0, 20.0), bars_s=(0.02, 0.1))
    windows = Windows(LATENESS_NS, FUTURE_NS, periods=periods, outlier_bps=np.inf)
    count, tail, last = 1_000_000, 130_000, 2_000
    market = random_market(np.random.default_rng(11), count, symbols=1)
    market["event_ns"] = START_NS + np.cumsum(np.random.default_rng(12).choice([0, MS, 2 * MS], count))
    span_ns = int(market["event_ns"][-1]) - START_NS
    for lap in range(10):
        # The same million, later and higher: what a sum has seen is no longer what it holds.
        if lap:
            market["event_ns"] += span_ns
            market["source_seq"] += count
            for name in ("price", "bid", "ask"):
                market[name] *= 1.01
        market["recv_ns"] = market["event_ns"]
        kept = market if lap < 9 else market[:-last]
        for start in range(0, len(kept), 8192):
            block = kept[start : start + 8192]
            reasons = windows.step(block, np.full(len(block), lap * count + start)).reason.copy()
            assert np.isin(reasons, [0, Reject.CROSSED, Reject.MISSING_SIDE]).all()
    end = run_exactly(market[-last:], windows, 10 * count)
    assert windows.states["seq"][0] > 9_000_000
    _, reasons = run(market[-tail:], Windows(LATENESS_NS, FUTURE_NS, periods=periods, outlier_bps=np.inf))
    used = np.isin(reasons, [0, Reject.MISSING_SIDE])
    expected = batch_features(market[-tail:][used], reasons[used] == 0, periods)
    assert_exact(end, expected[-len(end) :], features.names(periods))


def test_one_wild_print_leaves_no_trace_once_it_is_out_of_the_windows() -> None:
    # 100 times the price for one tick, as vendors have them: running sums kept its rounding error for 64 ticks.
    rng = np.random.default_rng(5)
    price = 49.0 + np.cumsum(rng.choice([-0.005, 0.0, 0.005], 400))
    for at in (100, 127, 191, 255):
        wild = price.copy()
        wild[at] *= 100
        feed = Feed()
        ticks = np.concatenate([feed.trade("AIG", value) for value in wild])
        rows, _ = run(ticks, Windows(LATENESS_NS, FUTURE_NS, outlier_bps=np.inf))
        assert_equal_features(rows, batch_features(ticks))
        fresh = Feed()
        without, _ = run(np.concatenate([fresh.trade("AIG", value) for value in price[at + 1 :]]))
        bollinger = [COLUMN["bollinger_20_percent_b"], COLUMN["bollinger_20_width_bps"]]
        assert np.allclose(rows[at + 20 :, bollinger], without[19:, bollinger], rtol=1e-6)


@pytest.fixture(scope="module")
def published(shared_data: Path) -> tuple[np.ndarray, np.ndarray, "pq.Table"]:
    """Feature rows of 502 daily closes fed as trades, the closes, and the published indicator values."""
    closes = pq.read_table(shared_data / "indicators" / "quotes_default.parquet").to_pandas()
    closes["price"], closes["size"], closes["kind"] = closes["close"], closes["volume"], TickKind.TRADE.value
    rows, reasons = run(from_columns("DEFAULT", closes))
    assert not reasons.any()
    reference = pq.read_table(shared_data / "indicators" / "reference_default.parquet").to_pandas()
    return rows.astype(np.float64), closes["close"].to_numpy(), reference


def test_rsi_is_the_published_one_from_its_first_value(
    published: tuple[np.ndarray, np.ndarray, "pq.Table"],
) -> None:
    rows, _, reference = published
    expected = reference["rsi.rsi"].to_numpy()
    known = ~np.isnan(expected)
    assert np.flatnonzero(known)[0] == 14
    assert np.abs(rows[known, COLUMN["rsi_14"]] - expected[known]).max() < 1e-4


def test_bollinger_bands_are_the_published_ones(published: tuple[np.ndarray, np.ndarray, "pq.Table"]) -> None:
    rows, _, reference = published
    known = ~np.isnan(reference["bb.percentB"].to_numpy())
    assert known.sum() == 502 - 19
    percent_b = reference["bb.percentB"].to_numpy()[known]
    width_bps = reference["bb.width"].to_numpy()[known] * 1e4
    assert np.abs(rows[known, COLUMN["bollinger_20_percent_b"]] - percent_b).max() < 1e-6
    assert np.allclose(rows[known, COLUMN["bollinger_20_width_bps"]], width_bps, rtol=1e-6)


def test_macd_is_the_published_one_once_the_start_is_forgotten(
    published: tuple[np.ndarray, np.ndarray, "pq.Table"],
) -> None:
    # The published averages start at the mean of their first values, ours at the first one: (25/27)^300 of the
    # difference is left after 300 days.
    rows, close, reference = published
    for name, column in (("macd_bps", "macd.macd"), ("macd_histogram_bps", "macd.histogram")):
        expected = reference[column].to_numpy() / close * 1e4
        assert np.abs(rows[300:, COLUMN[name]] - expected[300:]).max() < 1e-4
    expected = (close / reference["macd.fastEma"].to_numpy() - 1) * 1e4
    assert np.abs(rows[300:, COLUMN["ema_12_gap_bps"]] - expected[300:]).max() < 1e-4


NASTY_PRICES = st.one_of(
    st.sampled_from([1e-12, 1e-11, 1e-6, 0.01, 1.0, 49.18, 1e6, 1e14, 1e15]),
    st.floats(1e-12, 1e15),
)
NASTY_SIZES = st.one_of(st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 1e18]), st.floats(0, 1e18))
STEPS_NS = st.sampled_from([0, 1, 1000, 10**9, 3600 * 10**9, 10**16, -1, -(10**9), -LATENESS_NS])


@st.composite
def nasty_ticks(draw: st.DrawFn) -> Records:
    """Ticks that no market has, and that are still legal."""
    count = draw(st.integers(1, 80))
    ticks = empty_ticks(count)
    now_ns = START_NS
    for position in range(count):
        tick = ticks[position]
        now_ns += draw(STEPS_NS)
        tick["symbol"], tick["source_seq"] = b"NASTY", position + 1
        tick["event_ns"], tick["recv_ns"] = now_ns, now_ns
        if draw(st.booleans()):
            tick["kind"], tick["price"], tick["size"] = TickKind.TRADE, draw(NASTY_PRICES), draw(NASTY_SIZES)
            tick["side"] = draw(st.integers(-(2**15), 2**15 - 1))
        else:
            low, high = sorted((draw(NASTY_PRICES), draw(NASTY_PRICES)))
            tick["kind"], tick["bid"], tick["ask"] = TickKind.QUOTE, low, high
            tick["bid_size"] = draw(st.one_of(st.just(np.nan), NASTY_SIZES))
            tick["ask_size"] = draw(st.one_of(st.just(np.nan), NASTY_SIZES))
    return ticks


@settings(max_examples=80)
@given(nasty_ticks())
def test_features_are_finite_and_in_their_ranges_whatever_is_legal(ticks: Records) -> None:
    rows, reasons = run(ticks, Windows(LATENESS_NS, FUTURE_NS, outlier_bps=np.inf))
    assert set(reasons.tolist()) <= {0, Reject.LATE}
    assert len(rows) >= 1
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 1e6
    assert ((rows[:, COLUMN["rsi_14"]] >= 0) & (rows[:, COLUMN["rsi_14"]] <= 100)).all()
    for name in features.NAMES:
        if name.endswith("_position"):
            assert ((rows[:, COLUMN[name]] >= 0) & (rows[:, COLUMN[name]] <= 1)).all()
    for name in ("book_imbalance", "trade_flow", "trade_flow_1s", "trade_flow_300s"):
        assert np.abs(rows[:, COLUMN[name]]).max() <= 1 + 1e-6
    for name in (
        "bollinger_20_width_bps",
        "volatility_64_bps",
        "spread_bps",
        "tick_rate_log",
        "since_trade_log",
        "bid_age_log",
    ):
        assert rows[:, COLUMN[name]].min() >= 0


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=TICK.itemsize, max_size=TICK.itemsize), min_size=1, max_size=30))
def test_random_bytes_never_stop_the_kernel(raw: list[bytes]) -> None:
    ticks = np.frombuffer(b"".join(raw), TICK).copy()
    ticks["symbol"] = b"SAME"  # all for one symbol, or each would start afresh
    rows, reasons = run(ticks)
    assert np.isfinite(rows).all()
    assert len(rows) == (reasons == 0).sum()


def test_a_price_that_stands_still_is_flat() -> None:
    feed = Feed()
    rows, _ = run(np.concatenate([feed.trade("AIG", 49.18) for _ in range(200)]))
    still = rows[-1]
    for name in ("return_1_bps", "return_64_bps", "sma_32_gap_bps", "macd_bps", "volatility_64_bps"):
        assert still[COLUMN[name]] == pytest.approx(0.0, abs=1e-9)
    assert still[COLUMN["rsi_14"]] == 50.0
    assert still[COLUMN["bollinger_20_percent_b"]] == 0.5
    assert still[COLUMN["bollinger_20_width_bps"]] == 0.0


def test_the_side_of_a_trade_is_that_of_the_venue_then_of_the_quote_then_of_the_last_move() -> None:
    def flow(*ticks: Records) -> float:
        return float(run(np.concatenate(ticks))[0][-1, COLUMN["trade_flow"]])

    feed = Feed()
    book = feed.quote("X", 99.0, 101.0)
    assert flow(book, feed.trade("X", 101.0, side=-1)) == -1.0  # the venue knows better than the quote
    feed = Feed()
    assert flow(feed.quote("X", 99.0, 101.0), feed.trade("X", 100.5)) == 1.0
    feed = Feed()
    assert flow(feed.quote("X", 99.0, 101.0), feed.trade("X", 99.5)) == -1.0
    feed = Feed()
    assert flow(feed.trade("X", 100.0)) == 0.0  # nothing is known of the first
    feed = Feed()
    assert flow(feed.trade("X", 100.0, size=0.0), feed.trade("X", 99.0)) == -1.0  # a down-tick
    feed = Feed()
    ticks = [feed.trade("X", 100.0, size=0.0), feed.trade("X", 99.0), feed.trade("X", 99.0)]
    assert flow(*ticks) == -1.0  # a zero down-tick
    feed = Feed()
    assert flow(feed.trade("X", 100.0, side=32767)) == 1.0


def test_a_missing_side_keeps_its_price_and_its_size() -> None:
    feed = Feed()
    ticks = np.concatenate(
        [feed.quote("X", 99.0, 101.0, 300.0, 100.0), feed.quote("X", np.nan, 101.0, np.nan, 100.0)]
    )
    rows, reasons = run(ticks)
    assert not reasons.any()
    assert rows[1, COLUMN["book_imbalance"]] == rows[0, COLUMN["book_imbalance"]] == 0.5
    assert rows[1, COLUMN["order_flow_imbalance"]] == 0.0  # nothing moved
    assert rows[1, COLUMN["spread_bps"]] == 200.0


def test_order_flow_is_conts_at_each_kind_of_event() -> None:
    def event(bid: float, ask: float, bid_size: float, ask_size: float) -> float:
        feed = Feed()
        ticks = [feed.quote("X", 99.0, 101.0, 10.0, 20.0), feed.quote("X", bid, ask, bid_size, ask_size)]
        rows, _ = run(np.concatenate(ticks))
        weight = 2 / 33
        depth = 15.0 + weight * ((bid_size + ask_size) / 2 - 15.0)
        return float(rows[1, COLUMN["order_flow_imbalance"]]) * depth / weight

    assert event(99.0, 101.0, 10.0, 20.0) == pytest.approx(0.0)
    assert event(99.0, 101.0, 14.0, 20.0) == pytest.approx(4.0)  # the bid grew
    assert event(99.0, 101.0, 10.0, 26.0) == pytest.approx(-6.0, rel=1e-5)  # the ask grew
    assert event(99.5, 101.0, 7.0, 20.0) == pytest.approx(7.0)  # a better bid
    assert event(98.5, 101.0, 7.0, 20.0) == pytest.approx(-10.0)  # the bid was lifted away
    assert event(99.0, 100.5, 10.0, 5.0) == pytest.approx(-5.0)  # a better ask
    assert event(99.0, 101.5, 10.0, 5.0) == pytest.approx(20.0)  # the ask was taken
