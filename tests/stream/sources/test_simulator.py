"""The simulated market: determinism, soundness, and the statistics that it promises."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import InvariantError, RecordError, SettingsError
from stream.records import TICK, Records, TickKind
from stream.sources import market_model as model
from stream.sources.simulator import MAX_SYMBOLS, Simulator, symbol_names

START_NS = 1_700_000_000 * 10**9


def market(seed: int = 7, symbols: int = 8, rate_per_s: float = 200.0) -> Simulator:
    return Simulator(symbol_names(symbols), seed, START_NS, rate_per_s)


@pytest.fixture(scope="module")
def long_run() -> Records:
    """About three hours of eight symbols."""
    return market().chunk(2_000_000)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 2**64 - 1))
@settings(max_examples=30)
def test_the_stream_does_not_depend_on_how_it_is_cut(counts: list[int], seed: int) -> None:
    whole = market(seed).chunk(sum(counts))
    cut = market(seed)
    assert np.concatenate([cut.chunk(count) for count in counts]).tobytes() == whole.tobytes()


@given(st.lists(st.integers(0, 900_000_000), min_size=1, max_size=12), st.integers(1, 50))
@settings(max_examples=30)
def test_steps_of_time_cut_the_same_stream(steps_ns: list[int], limit: int) -> None:
    cut = market()
    now_ns, parts = START_NS, []
    for step_ns in steps_ns:
        now_ns += step_ns
        while len(part := cut.until(now_ns, limit)):
            assert part["event_ns"].max() <= now_ns
            parts.append(part)
        assert cut.next_ns > now_ns
    got = np.concatenate(parts) if parts else np.zeros(0, TICK)
    assert got.tobytes() == market().chunk(len(got) + 1)[:-1].tobytes()


def test_a_snapshot_goes_on_with_the_same_ticks() -> None:
    one = market()
    one.chunk(12_345)
    other = market().restore(one.snapshot())
    assert other.position == 12_345
    assert one.chunk(10_000).tobytes() == other.chunk(10_000).tobytes()
    with pytest.raises(InvariantError, match="snapshot"):
        market(symbols=9).restore(one.snapshot())


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import hashlib, json; from stream.sources.simulator import *;"
        f"s = Simulator(symbol_names(8), 7, {START_NS}, 200.0);"
        "print(json.dumps([s.stream_id, hashlib.sha256(s.chunk(50000).tobytes()).hexdigest()]))"
    )
    first, second = (
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(2)
    )
    assert first == second
    assert first[0] == market().stream_id


def test_other_markets_are_other_streams() -> None:
    base = {"symbols": ("A", "B"), "seed": 1, "start_ns": START_NS, "rate_per_s": 5.0}
    others = [{"symbols": ("A", "C")}, {"seed": 2}, {"start_ns": START_NS + 1}, {"rate_per_s": 6.0}]
    made = [Simulator(**(base | change)) for change in [{}, *others]]  # type: ignore[arg-type]
    assert len({each.stream_id for each in made}) == len(made)
    assert market(seed=1).chunk(100).tobytes() != market(seed=2).chunk(100).tobytes()


def test_every_tick_is_sound(long_run: Records) -> None:
    assert np.array_equal(long_run["source_seq"], np.arange(1, len(long_run) + 1))
    assert np.all(np.diff(long_run["event_ns"]) >= 0)
    assert np.array_equal(long_run["event_ns"], long_run["recv_ns"])
    assert set(long_run["symbol"].tolist()) == {name.encode() for name in symbol_names(8)}
    trades = long_run[long_run["kind"] == TickKind.TRADE]
    quotes = long_run[long_run["kind"] == TickKind.QUOTE]
    assert len(trades) + len(quotes) == len(long_run)
    assert np.all(quotes["ask"] > quotes["bid"])
    assert np.all(quotes["bid"] > 0)
    assert np.all(quotes["bid_size"] >= 1)
    assert np.all(quotes["ask_size"] >= 1)
    assert np.all(trades["price"] > 0)
    assert np.all(trades["size"] >= 1)
    assert set(trades["side"].tolist()) == {-1, 1}
    assert np.all(quotes["side"] == 0)
    for name, ticks in (("price", trades), ("bid", quotes), ("ask", quotes)):
        assert np.array_equal(ticks[name], np.round(ticks[name] * 100) / 100), "prices stand on the grid"
    for name in ("bid", "ask", "bid_size", "ask_size"):
        assert np.isnan(trades[name]).all()
    for name in ("price", "size"):
        assert np.isnan(quotes[name]).all()


@pytest.mark.parametrize("rate_per_s", [2.0, 2_000.0])
def test_the_long_run_rate_is_the_one_asked_for(rate_per_s: float) -> None:
    ticks = market(symbols=4, rate_per_s=rate_per_s).chunk(
        int(rate_per_s * 4 * 3_600) if rate_per_s < 100 else 10**6
    )
    # Of a short run the mix of regimes is chance: compare within the regimes' bounds.
    span_s = (ticks["event_ns"][-1] - ticks["event_ns"][0]) / 1e9
    slowest, fastest = (np.array(model.ACTIVITY) / (model.regime_shares() @ np.array(model.ACTIVITY)))[[0, 2]]
    assert slowest * 0.9 < len(ticks) / span_s / rate_per_s < fastest * 1.1


def test_over_many_regimes_the_rate_is_exact() -> None:
    simulator = market(symbols=2, rate_per_s=2.0)
    days = 30
    end_ns = START_NS + days * 86_400 * 10**9
    count = 0
    while len(part := simulator.until(end_ns, 500_000)):
        count += len(part)
    assert count / (days * 86_400) == pytest.approx(2.0, rel=0.1)


def test_regimes_have_the_shares_of_their_chain() -> None:
    simulator = market(symbols=1, rate_per_s=0.05)
    seen = {"calm": 0, "normal": 0, "stressed": 0}
    for minute in range(1, 60 * 24 * 60):
        simulator.until(START_NS + minute * 60 * 10**9, 200)
        seen[simulator.regime] += 1
    shares = np.array(list(seen.values())) / sum(seen.values())
    assert shares == pytest.approx(model.regime_shares(), abs=0.05)
    assert all(model.mean_offspring(regime) < 1 for regime in range(3))


def test_arrivals_cluster(long_run: Records) -> None:
    """A Poisson process has a variance-to-mean ratio of counts of 1; excitement and regimes raise it."""
    for name in symbol_names(4):
        seconds = (long_run["event_ns"][long_run["symbol"] == name.encode()] - START_NS) // 10**9
        counts = np.bincount(seconds)
        # Within ten minutes, so that it is not the regimes alone.
        ratios = [part.var() / part.mean() for part in np.array_split(counts, len(counts) // 600)]
        assert np.median(ratios) > 2


def order_flow_and_returns(
    ticks: Records, window_ns: int = 10 * 10**9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, on a grid of times, Cont's order flow of the window before, the return of it, and the next one."""
    quotes = ticks[ticks["kind"] == TickKind.QUOTE]
    bid, ask, bid_size, ask_size = (quotes[name] for name in ("bid", "ask", "bid_size", "ask_size"))
    flow = np.zeros(len(quotes))
    flow[1:] = (bid[1:] >= bid[:-1]) * bid_size[1:] - (bid[1:] <= bid[:-1]) * bid_size[:-1]
    flow[1:] -= (ask[1:] <= ask[:-1]) * ask_size[1:] - (ask[1:] >= ask[:-1]) * ask_size[:-1]
    times, summed, log_mid = quotes["event_ns"], np.cumsum(flow), np.log((bid + ask) / 2)
    grid = np.arange(times[0] + 2 * window_ns, times[-1] - 2 * window_ns, window_ns)
    before, now, after = (
        np.searchsorted(times, grid + shift, side="right") - 1 for shift in (-window_ns, 0, window_ns)
    )
    return summed[now] - summed[before], log_mid[now] - log_mid[before], log_mid[after] - log_mid[now]


def test_order_flow_explains_returns_and_foretells_them_a_little(long_run: Records) -> None:
    together, ahead = [], []
    for name in symbol_names(8):
        flow, same, following = order_flow_and_returns(long_run[long_run["symbol"] == name.encode()])
        together.append(np.corrcoef(flow, same)[0, 1])
        ahead.append(np.corrcoef(flow, following)[0, 1])
    assert 0.4 < np.mean(together) < 0.95
    # There is something to learn, and it is no gift: an R squared of 0.2 to 9 %.
    assert 0.05 < np.mean(ahead) < 0.3
    assert max(ahead) < 0.4


def test_without_its_order_flow_the_price_foretells_next_to_nothing(long_run: Records) -> None:
    _, same, following = order_flow_and_returns(long_run[long_run["symbol"] == b"SIM.ALPHA"])
    assert abs(np.corrcoef(same, following)[0, 1]) < 0.2


def test_names_are_different_for_as_many_symbols_as_there_can_be() -> None:
    names = symbol_names(MAX_SYMBOLS)
    assert names[:2] == ["SIM.ALPHA", "SIM.BRAVO"]
    assert names[26] == "SIM.ALPHA2"
    assert len(set(names)) == MAX_SYMBOLS
    ticks = Simulator(names, 1, START_NS, 1e6).chunk(200_000)
    assert len(np.unique(ticks["symbol"])) > 9_900


def test_arguments_out_of_bounds_are_refused() -> None:
    with pytest.raises(SettingsError, match="1 to 10000 symbols"):
        symbol_names(0)
    with pytest.raises(SettingsError, match="different symbols"):
        Simulator(["A", "A"], 1, START_NS, 1.0)
    for rate_per_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="rate of the simulator"):
            Simulator(["A"], 1, START_NS, rate_per_s)
    with pytest.raises(SettingsError, match="seed"):
        Simulator(["A"], -1, START_NS, 1.0)
    with pytest.raises(RecordError, match="printable ASCII"):
        Simulator(["A" * 25], 1, START_NS, 1.0)
