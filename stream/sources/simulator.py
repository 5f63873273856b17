"""A market that never closes: the simulator as an object without I/O. `market_model` says what it simulates.

The stream is a function of the seed, the symbols, the rate and the start: `Simulator.chunk` and `Simulator.until`
may cut it anywhere. ``event_ns`` is simulated time, ``recv_ns`` is the same, and ``source_seq`` counts from 1 over
all symbols. A training job calls `chunk` as fast as it likes; `simulating` paces the stream by the clock.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stream.clock import NS_PER_S
from stream.errors import InvariantError, SettingsError
from stream.records import TICK, Records, empty_ticks, encode_symbol, symbol_words
from stream.sources import market_model as model
from stream.sources.market_kernel import draw_all, generate

MAX_SYMBOLS: Final = 10_000
# Part of the stream's identity: raise it whenever the same seed gives other ticks.
MODEL_VERSION: Final = 1

# fmt: off
_NAMES: Final = (
    "ALPHA", "BRAVO", "CHARLIE", "DELTA", "ECHO", "FOXTROT", "GOLF", "HOTEL", "INDIA", "JULIETT", "KILO",
    "LIMA", "MIKE", "NOVEMBER", "OSCAR", "PAPA", "QUEBEC", "ROMEO", "SIERRA", "TANGO", "UNIFORM", "VICTOR",
    "WHISKEY", "XRAY", "YANKEE", "ZULU",
)
# fmt: on
_ACTIVITY_EXPONENT: Final = 0.6  # the activity of the n-th symbol falls with n to this power
_STATE_KEYS: Final = ("rng", "scalars", "state", "last_ns", "times", "order")
_FOREVER_NS: Final = np.iinfo(np.int64).max


def symbol_names(count: int) -> list[str]:
    """Return names for simulated symbols: SIM.ALPHA, ..., SIM.ZULU, SIM.ALPHA2, ...

    Raises:
        SettingsError: there cannot be that many.
    """
    if not 1 <= count <= MAX_SYMBOLS:
        raise SettingsError(f"the simulator has 1 to {MAX_SYMBOLS} symbols, not {count}")
    rounds = (divmod(number, len(_NAMES)) for number in range(count))
    return [f"SIM.{_NAMES[rest]}{turn + 1 if turn else ''}" for turn, rest in rounds]


class Simulator:
    """A deterministic stream of ticks of several symbols."""

    def __init__(self, symbols: Sequence[str], seed: int, start_ns: int, rate_per_s: float) -> None:
        """Make a market that opens at ``start_ns``.

        Args:
            symbols: their names, 1 to `MAX_SYMBOLS`; the first are the most active.
            seed: 0 to 2**64 - 1.
            start_ns: simulated time of the opening, ns since 1970 UTC.
            rate_per_s: ticks of all symbols in a second of simulated time, in the long run.

        Raises:
            SettingsError: a number is out of bounds, or a name occurs twice.
            RecordError: a name does not fit into a record.
        """
        if not 1 <= len(symbols) <= MAX_SYMBOLS or len(set(symbols)) != len(symbols):
            raise SettingsError(f"the simulator takes 1 to {MAX_SYMBOLS} different symbols, not {len(symbols)}")
        if not 0 < rate_per_s < math.inf:
            raise SettingsError(f"the rate of the simulator is {rate_per_s} ticks/s; right would be above 0")
        if not 0 <= seed < 2**64:
            raise SettingsError(f"the seed of the simulator is {seed}; right would be 0 to 2**64 - 1")
        self.symbols = tuple(symbols)
        self.seed = seed
        self.start_ns = start_ns
        self.rate_per_s = rate_per_s
        self.stream_id = self._identity()
        self._names = symbol_words(np.array([encode_symbol(name) for name in symbols], TICK["symbol"]))
        self._rng = np.array([seed], np.uint64)
        self._scalars = np.array([1, start_ns + int(model.HOLDING_S[1] * NS_PER_S), 0], np.int64)
        self._last_ns = np.full(len(symbols), start_ns, np.int64)
        self._times = np.zeros(len(symbols), np.int64)
        self._order = np.zeros(len(symbols), np.int64)
        self._parameters, self._state = _open_market(len(symbols), seed, rate_per_s)
        draw_all(self._rng, start_ns, 1, self._parameters, self._state, self._last_ns, self._times, self._order)

    @property
    def position(self) -> int:
        """``source_seq`` of the last tick made, 0 before the first."""
        return int(self._scalars[model.COUNT])

    @property
    def next_ns(self) -> int:
        """Simulated time of the next tick, or of a change of regime before it."""
        return min(int(self._times[0]), int(self._scalars[model.REGIME_END_NS]))

    @property
    def regime(self) -> str:
        """ "calm", "normal" or "stressed"."""
        return ("calm", "normal", "stressed")[self._scalars[model.REGIME]]

    def chunk(self, count: int) -> Records:
        """Return the next ``TICK[count]``."""
        return self.until(int(_FOREVER_NS), count)

    def until(self, end_ns: int, limit: int) -> Records:
        """Return the next ticks up to simulated time ``end_ns``, ``TICK[N]``, at most ``limit``."""
        ticks = empty_ticks(limit)
        ticks["stream_id"] = self.stream_id
        words = ticks.view(np.uint64).reshape(limit, -1)
        count = generate(
            words,
            words.view(np.float64),
            end_ns,
            self._rng,
            self._scalars,
            self._names,
            self._parameters,
            self._state,
            self._last_ns,
            self._times,
            self._order,
        )
        return ticks[:count]

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Return everything that the next ticks depend on, as arrays, for `restore`."""
        arrays = (self._rng, self._scalars, self._state, self._last_ns, self._times, self._order)
        return {key: array.copy() for key, array in zip(_STATE_KEYS, arrays, strict=True)}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> Self:
        """Go on from a `snapshot` of a simulator made with the same arguments.

        Raises:
            InvariantError: the snapshot is of another market.
        """
        arrays = (self._rng, self._scalars, self._state, self._last_ns, self._times, self._order)
        for key, array in zip(_STATE_KEYS, arrays, strict=True):
            saved = snapshot[key]
            if saved.shape != array.shape or saved.dtype != array.dtype:
                raise InvariantError(
                    f"snapshot: {key} is {saved.dtype}{saved.shape}, not {array.dtype}{array.shape}"
                )
            array[...] = saved
        return self

    def _identity(self) -> int:
        what = [MODEL_VERSION, self.symbols, self.seed, self.start_ns, self.rate_per_s]
        return int.from_bytes(hashlib.sha256(json.dumps(what).encode()).digest()[:4], "little")


def _open_market(count: int, seed: int, rate_per_s: float) -> tuple[model.Floats, model.Floats]:
    """Return the parameters and the first state of each symbol."""
    draw = np.random.Generator(np.random.PCG64(seed))
    activity = np.arange(1, count + 1) ** -_ACTIVITY_EXPONENT
    parameters = np.zeros((count, model.PARAMETERS))
    parameters[:, model.RATE] = rate_per_s * activity / activity.sum()
    parameters[:, model.PER_UNIT] = 100.0
    parameters[:, model.SIGMA] = 1e-4 * np.exp(draw.normal(0, 0.3, count))  # 1 bps a second: 3 % a day
    parameters[:, model.LOG_DEPTH] = draw.uniform(math.log(200), math.log(2_000), count)
    parameters[:, model.LOG_SIZE] = parameters[:, model.LOG_DEPTH] - draw.uniform(1.5, 2.5, count)
    parameters[:, model.SPREAD] = draw.uniform(0.5, 1.5, count)
    state = np.zeros((count, model.STATES))
    state[:, model.LOG_PRICE] = draw.uniform(math.log(20), math.log(500), count)
    offspring = model.mean_offspring(1)
    state[:, model.EXCITED] = parameters[:, model.RATE] * offspring
    state[:, model.PRESSURE] = draw.normal(0, 1, count)
    state[:, model.BID] = np.floor(np.exp(state[:, model.LOG_PRICE]) * parameters[:, model.PER_UNIT])
    state[:, model.ASK] = state[:, model.BID] + 1
    state[:, model.LOG_BID_SIZE] = state[:, model.LOG_ASK_SIZE] = parameters[:, model.LOG_DEPTH]
    return parameters, state


if sys.byteorder != "little":
    raise InvariantError("records are little-endian, and the simulator writes them as words of the machine")
