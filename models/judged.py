"""The rows that forecasters are judged by, with what one has to know of each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.periods import Periods
from models.dataset import HistoryRows, Labels, by_symbol
from models.profit import Market
from models.splits import Split
from stream.clock import NS_PER_S
from stream.errors import ModelError

REGIMES: Final = ("calm", "usual", "wild")
_BPS: Final = 1e4
_NS_PER_HOUR: Final = 3600 * NS_PER_S
_HOURS: Final = 24

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """Some of the judged rows: all of them, or those of a symbol, a fold, a UTC hour or a volatility regime."""

    group: str  # all, symbol, fold, hour, regime
    key: str
    rows: Mask  # [J]


@dataclass(frozen=True)
class Judged:
    """J rows of the judged spans of all folds, by event time."""

    index: Integers  # [J] of the rows of history
    fold: Integers  # [J]
    direction: Integers  # [J]
    regime: Integers  # [J] of `REGIMES`
    market: Market
    symbols: tuple[str, ...]
    horizon_ns: int  # how far labels look ahead
    regime_feature: str

    def slices(self) -> Iterator[Slice]:
        """Yield all rows first, then each slice that is less than all."""
        yield Slice("all", "all", np.ones(len(self.index), np.bool_))
        hours = self.market.event_ns // _NS_PER_HOUR % _HOURS
        for group, names, of_row in (
            ("symbol", self.symbols, self.market.symbol_row),
            ("fold", tuple(str(number + 1) for number in range(int(self.fold.max()) + 1)), self.fold),
            ("hour", tuple(f"{hour:02d}" for hour in range(_HOURS)), hours),
            ("regime", REGIMES, self.regime),
        ):
            present = np.unique(of_row)
            # One symbol or one fold is all rows once more.
            for number in present if len(present) > 1 else ():
                yield Slice(group, names[number], of_row == number)


def judged_rows(rows: HistoryRows, labels: Labels, folds: Sequence[Split], periods: Periods) -> Judged:
    """Gather the judged rows of all folds.

    Volatility regimes are thirds of the feature of volatility over the third window by event time (60 s by
    default), for each symbol by itself, with borders from the training span of the fold.

    Args:
        rows: A rows, with all features.
        labels: of them.
        folds: whose judged spans do not overlap.
        periods: of the features.

    Raises:
        ModelError: no row to judge by, or one that is in two folds.
    """
    available = features.names(periods)
    regime_feature = f"volatility_{periods.windows_s[2]:g}s_bps"
    volatility = rows.features[:, features.indices((regime_feature,), available)[0]]
    parts = [np.flatnonzero(fold.test & labels.known) for fold in folds]
    index = np.concatenate([np.zeros(0, np.int64), *parts])
    if not len(index) or len(np.unique(index)) != len(index):
        raise ModelError(f"{len(index)} rows to judge by; right would be some, and each in one fold only")
    regimes = [
        _regimes(volatility, rows.symbol_row, fold.train, part) for fold, part in zip(folds, parts, strict=True)
    ]
    # Folds follow one another, and symbols are merged by arrival: nearly sorted.
    order = np.argsort(rows.event_ns[index], kind="stable")
    index = index[order]
    end_ns = labels.end_ns[index]
    end = _rows_at(rows, index, end_ns)
    return Judged(
        index=index,
        fold=np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order],
        direction=labels.direction[index],
        regime=np.concatenate(regimes)[order],
        market=Market(
            symbol_row=rows.symbol_row[index],
            event_ns=rows.event_ns[index],
            end_ns=end_ns,
            return_bps=(rows.ref_price[end] / rows.ref_price[index] - 1.0) * _BPS,
            spread_bps=rows.spread_bps[index].astype(np.float64),
            exit_spread_bps=rows.spread_bps[end].astype(np.float64),
        ),
        symbols=rows.symbols,
        # Of a horizon in ticks, a length that few of them exceed.
        horizon_ns=max(1, int(np.quantile(end_ns - rows.event_ns[index], 0.9))),
        regime_feature=regime_feature,
    )


def _rows_at(rows: HistoryRows, index: Integers, end_ns: Integers) -> Integers:
    """Return for each of some rows, ``int64[J]``, its symbol's newest row at a later time."""
    found = np.empty(len(index), np.int64)
    for where in by_symbol(rows.symbol_row):
        mine = rows.symbol_row[index] == rows.symbol_row[where[0]]
        found[mine] = where[np.searchsorted(rows.event_ns[where], end_ns[mine], side="right") - 1]
    return found


def _regimes(volatility: NDArray[np.float32], symbol_row: Integers, train: Mask, index: Integers) -> Integers:
    found = np.empty(len(index), np.int64)
    of_rows = symbol_row[index]
    for symbol in np.unique(of_rows):
        past = volatility[train & (symbol_row == symbol)]
        borders = np.quantile(past if len(past) else volatility[train], [1 / 3, 2 / 3])
        mine = of_rows == symbol
        found[mine] = np.searchsorted(borders, volatility[index[mine]], side="left")
    return found
