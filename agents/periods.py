"""The periods and windows of the indicators: settings, checked, and as the record that the kernel takes.

How many features there are does not depend on them, what each one means does: its name carries its period
(`agents/features.py`), and a `STATE` row carries `Periods.id`, so that neither a model nor a row that was made
with other periods is ever used by mistake.
"""

import hashlib
import itertools
import math
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

import numpy as np

from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.records import Records
from stream.settings import Settings

RING: Final = 64  # the longest window by count, in ticks or in bars; a power of two
WINDOWS: Final = 4  # windows by event time
BARS: Final = 2  # lengths of bars
BUCKETS: Final = 10  # parts of a window by event time: it moves on by a tenth of its length
_LONGEST_AVERAGE: Final = 100_000  # of an exponential average
_SHORTEST_S: Final = 0.01
_LONGEST_S: Final = 7 * 86_400.0

# What the compiled kernel reads. Weights are those of exponential averages: 2 / (period + 1).
PERIODS: Final = np.dtype(
    [
        ("return_short", "<i8"),
        ("return_long", "<i8"),
        ("sma", "<i8"),
        ("ema_fast_weight", "<f8"),
        ("ema_slow_weight", "<f8"),
        ("macd_signal_weight", "<f8"),
        ("rsi", "<i8"),
        ("bollinger", "<i8"),
        ("volatility", "<i8"),
        ("channel", "<i8"),
        ("flow_weight", "<f8"),
        ("bar_sma", "<i8"),
        ("bar_ema_fast", "<i8"),
        ("bar_ema_slow", "<i8"),
        ("bar_macd_signal", "<i8"),
        ("bar_rsi", "<i8"),
        ("bar_bollinger", "<i8"),
        ("bar_atr", "<i8"),
        ("bar_roc", "<i8"),
        ("bar_channel", "<i8"),
        ("bar_volatility", "<i8"),
        ("session_gap_ns", "<i8"),  # 0: a session never ends
        ("id", "<u8"),
        ("bucket_ns", "<i8", (WINDOWS,)),
        ("per_window_s", "<f8", (WINDOWS,)),  # 1 / the window's length
        ("bar_ns", "<i8", (BARS,)),
    ]
)


@dataclass(frozen=True)
class Periods:
    """Every period and window. ``tick_*`` count ticks of the symbol, ``bar_*`` count closed bars.

    Raises:
        SettingsError: a period is out of its range, or two of them contradict each other.
    """

    tick_return_short: int = 8
    tick_return_long: int = 64
    tick_sma: int = 32
    tick_ema_fast: int = 12
    tick_ema_slow: int = 26
    tick_macd_signal: int = 9
    tick_rsi: int = 14
    tick_bollinger: int = 20
    tick_volatility: int = 64
    tick_channel: int = 64
    tick_flow: int = 32  # exponential averages of flows, depth, and of the time between ticks
    bar_sma: int = 20
    bar_ema_fast: int = 12
    bar_ema_slow: int = 26
    bar_macd_signal: int = 9
    bar_rsi: int = 14
    bar_bollinger: int = 20
    bar_atr: int = 14
    bar_roc: int = 10
    bar_channel: int = 20
    bar_volatility: int = 20
    windows_s: tuple[float, ...] = (1.0, 10.0, 60.0, 300.0)
    bars_s: tuple[float, ...] = (1.0, 60.0)
    session_gap_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                least = 2 if field.name.endswith(("bollinger", "volatility", "channel")) else 1
                most = RING if _is_kept_whole(field.name) else _LONGEST_AVERAGE
                if not isinstance(value, int) or not least <= value <= most:
                    raise SettingsError(f"{field.name} is {value!r}; right would be {least} to {most}")
        for short, long in (
            ("tick_return_short", "tick_return_long"),
            ("tick_ema_fast", "tick_ema_slow"),
            ("bar_ema_fast", "bar_ema_slow"),
        ):
            if getattr(self, short) >= getattr(self, long):
                raise SettingsError(
                    f"{short} is {getattr(self, short)} and {long} is {getattr(self, long)}; "
                    "right would be a shorter one and a longer one"
                )
        if self.tick_return_short == 1:
            raise SettingsError("tick_return_short is 1; the return over 1 tick is there anyway: 2 or more")
        _check_lengths("windows_s", self.windows_s, WINDOWS, BUCKETS)
        _check_lengths("bars_s", self.bars_s, BARS, 1)
        if not 0.0 <= self.session_gap_s <= _LONGEST_S:
            raise SettingsError(
                f"session_gap_s is {self.session_gap_s!r}; right would be 0 (off) to {_LONGEST_S:.0f} seconds"
            )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the periods that the settings of the same names say.

        Raises:
            SettingsError: they are not ones.
        """
        own = {field.name: getattr(settings, field.name) for field in fields(cls)}
        for name in ("windows_s", "bars_s"):
            own[name] = _numbers(name, own[name])
        return cls(**own)

    def plain(self) -> dict[str, object]:
        """Return every period by its name, as plain values for JSON."""
        return asdict(self)

    @property
    def id(self) -> int:
        """What tells these periods from any others: 8 bytes of a SHA-256 over what the kernel reads."""
        return int(self.record()["id"][0])

    def record(self) -> Records:
        """Return ``PERIODS[1]`` for the kernel."""
        record = np.zeros(1, PERIODS)
        for name in PERIODS.names or ():
            if hasattr(self, f"tick_{name}"):
                record[name] = getattr(self, f"tick_{name}")
            elif name.startswith("bar_") and hasattr(self, name):
                record[name] = getattr(self, name)
        record["ema_fast_weight"] = 2.0 / (self.tick_ema_fast + 1.0)
        record["ema_slow_weight"] = 2.0 / (self.tick_ema_slow + 1.0)
        record["macd_signal_weight"] = 2.0 / (self.tick_macd_signal + 1.0)
        record["flow_weight"] = 2.0 / (self.tick_flow + 1.0)
        record["session_gap_ns"] = _ns(self.session_gap_s)
        record["bucket_ns"] = [_ns(length_s) // BUCKETS for length_s in self.windows_s]
        record["per_window_s"] = [1.0 / length_s for length_s in self.windows_s]
        record["bar_ns"] = [_ns(length_s) for length_s in self.bars_s]
        record["id"] = int.from_bytes(hashlib.sha256(record.tobytes()).digest()[:8], "little")
        return record


def _is_kept_whole(name: str) -> bool:
    """Whether all values of such a window are kept in a ring, rather than an average that is carried on."""
    return name.endswith(("return_short", "return_long", "sma", "bollinger", "volatility", "channel", "roc"))


def _ns(length_s: float) -> int:
    return round(length_s * NS_PER_S)


def _check_lengths(name: str, lengths_s: tuple[float, ...], count: int, parts: int) -> None:
    right = f"right would be {count} different lengths of {_SHORTEST_S} to {_LONGEST_S:.0f} seconds, shortest first"
    in_range = all(math.isfinite(each) and _SHORTEST_S <= each <= _LONGEST_S for each in lengths_s)
    if len(lengths_s) != count or not in_range:
        raise SettingsError(f"{name} is {lengths_s!r}; {right}")
    if any(first >= second for first, second in itertools.pairwise(lengths_s)):
        raise SettingsError(f"{name} is {lengths_s!r}; {right}")
    if any(_ns(each) % (1000 * parts) for each in lengths_s):
        raise SettingsError(f"{name} is {lengths_s!r}; right would be whole microseconds in each part of {parts}")


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; right would be seconds with commas between") from None


DEFAULT: Final = Periods()
