import numpy as np

from models.dataset import history
from models.simulated import MARKETS, TICKS_PER_S, simulated_markets


def test_all_markets_tick_side_by_side_and_each_symbol_in_order() -> None:
    ticks = np.concatenate(list(simulated_markets(3, 45.0)))
    assert len(np.unique(ticks["symbol"])) == sum(count for count, _ in MARKETS)
    assert 0.2 < len(ticks) / (45.0 * TICKS_PER_S) < 5.0
    assert ticks["event_ns"].max() - ticks["event_ns"].min() <= 45 * 10**9
    for symbol in np.unique(ticks["symbol"]):
        own = ticks[ticks["symbol"] == symbol]
        assert (np.diff(own["event_ns"]) >= 0).all()
        assert (np.diff(own["source_seq"].astype(np.int64)) > 0).all()
    assert len(history(ticks, 5_000_000_000).features) == len(ticks)


def test_the_seed_decides_and_nothing_is_left_out_between_slices() -> None:
    short, long, other = (
        np.concatenate(list(simulated_markets(*how))) for how in ((3, 25.0), (3, 60.0), (4, 25.0))
    )
    assert short.tobytes() == np.concatenate(list(simulated_markets(3, 25.0))).tobytes()
    assert len(other) != len(short) or other.tobytes() != short.tobytes()
    for symbol in np.unique(short["symbol"]):
        own = short[short["symbol"] == symbol]
        assert long[long["symbol"] == symbol][: len(own)].tobytes() == own.tobytes()
