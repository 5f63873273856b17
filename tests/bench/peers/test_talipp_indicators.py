"""talipp's values are our features: all those that the report counts, bars included."""

from pathlib import Path

import pytest

from bench import agreement, markets
from stream.records import Records

TICKS = 8_000
FEATURES = 38


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> agreement.Market:
    # Slow enough for hundreds of minutes.
    ticks: Records = markets.simulated(2, TICKS)
    ticks["event_ns"] = ticks["event_ns"][0] + (ticks["event_ns"] - ticks["event_ns"][0]) * 6_000
    ticks["recv_ns"] = ticks["event_ns"]
    return agreement.Market.make(ticks, tmp_path_factory.mktemp("market") / "market.npz")


@pytest.mark.usefixtures("bench_group")
def test_talipp_agrees_with_the_engine_in_ticks_and_bars(market: agreement.Market) -> None:
    from bench.peers.talipp_indicators import Symbol

    symbols = {symbol: Symbol() for symbol in market.rows}
    for name, event_ns, ref, price in markets.load_trail(str(market.path), TICKS):
        symbols[name].add(event_ns, ref, price)
    found = agreement.compare({name: symbol.values() for name, symbol in symbols.items()}, market)
    assert found["compared"] == 2 * (FEATURES + 1), found
    assert found["max_relative_difference"] < agreement.TOLERANCE, found


@pytest.mark.usefixtures("bench_group")
def test_talib_agrees_with_the_engine_in_ticks_and_bars(market: agreement.Market) -> None:
    from bench.peers.talib_streams import Symbol

    trails: dict[str, list[tuple[int, float, float | None]]] = {}
    for name, *tick in markets.load_trail(str(market.path), TICKS):
        trails.setdefault(name, []).append((tick[0], tick[1], tick[2]))
    values = {}
    for name, trail in trails.items():
        symbol = Symbol(trail[:128])
        for event_ns, ref, price in trail[128:]:
            symbol.add(event_ns, ref, price)
        values[name] = symbol.values()
    found = agreement.compare(values, market)
    assert found["compared"] == 2 * (FEATURES + 1), found
    assert found["max_relative_difference"] < agreement.TOLERANCE, found


def test_a_package_without_enough_prices_has_nothing_to_compare(tmp_path: Path, bench_group: None) -> None:
    from bench.peers.talipp_indicators import Symbol

    symbol = Symbol()
    symbol.add(10**18, 20.0, 20.0)
    market = agreement.Market.make(markets.simulated(1, 10), tmp_path / "market.npz")
    assert agreement.compare({"SIM.ALPHA": symbol.values()}, market)["compared"] == 0
