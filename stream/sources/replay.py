"""Recorded days as one numbered stream of ticks.

The ticks of all files of one day are merged by ``ts_ns``; at the same nanosecond quotes come before trades, then
the order of the files' paths decides, then the original order inside the file. Days follow one another. Files
without a date in their names make one more day, the last, by their own times; with ``day`` they give what they
have of that UTC day.

``source_seq`` is 1 + the position in the merged stream. ``stream_id`` is a hash of what is replayed (names and
sizes of the files, day, symbols, and the run's name), so the same replay started again goes on where it stopped,
and never publishes a tick twice. ``event_ns`` is ``ts_ns``: one clock for the whole stream, the recorder's.

Trades without a known aggressor get the one that `trade_side.infer_sides` finds.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.clock import NS_PER_S
from stream.errors import SourceError
from stream.records import Records, TickKind
from stream.sources.tick_files import TickFile, find_files, read_symbols, read_ticks
from stream.sources.trade_side import infer_sides

_EPOCH: Final = date(1970, 1, 1)
_DAY_NS: Final = 86_400 * NS_PER_S


@dataclass(frozen=True)
class _Day:
    """What is merged with one another."""

    files: tuple[TickFile, ...]
    rows: int | None  # None when only reading tells


class Replay:
    """A stream of recorded ticks: days that are loaded one at a time (120 MB for 1.2 million ticks)."""

    def __init__(
        self,
        paths: Sequence[Path],
        day: date | None = None,
        symbols: Sequence[str] | None = None,
        run: str = "",
    ) -> None:
        """Look at the files; ticks are read by `days`.

        Args:
            paths: files of ticks, or directories of them; see `tick_files`.
            day: replay this day only.
            symbols: replay these only.
            run: another name makes it another stream, to be published again from its start.

        Raises:
            SourceError: nothing to replay: says which days or symbols there are.
        """
        self.day = day
        self.symbols = None if symbols is None else sorted(set(symbols))
        self._files = find_files(paths)
        self._plan = self._make_plan()
        self._check_symbols()
        self.stream_id = self._identity(run)

    @property
    def total(self) -> int | None:
        """How many ticks there are; None while only reading would tell."""
        rows = [part.rows for part in self._plan]
        return None if None in rows else sum(count for count in rows if count is not None)

    def days(self, first_seq: int = 1) -> Iterator[Records]:
        """Yield each day's ticks, ``TICK[N]``, merged and numbered; ``recv_ns`` is left 0.

        Args:
            first_seq: days that end before this ``source_seq`` are passed over.

        Raises:
            SourceError: a file is damaged, or has nothing of the day.
        """
        base = 0
        for part in self._plan:
            if part.rows is not None and base + part.rows < first_seq:
                base += part.rows
                continue
            ticks = self._load(part)
            ticks["source_seq"] = np.arange(base + 1, base + 1 + len(ticks))
            ticks["stream_id"] = self.stream_id
            base += len(ticks)
            if len(ticks) and base >= first_seq:
                yield ticks

    def _make_plan(self) -> list[_Day]:
        dated = sorted({file.day for file in self._files if file.day is not None})
        undated = tuple(file for file in self._files if file.day is None)
        if self.day is not None:
            files = tuple(file for file in self._files if file.day in (self.day, None))
            if not files:
                raise SourceError(f"no ticks of {self.day}; there are {_listed(dated)}")
            return [self._planned(files)]
        plan = [self._planned(tuple(file for file in self._files if file.day == each)) for each in dated]
        return [*plan, self._planned(undated)] if undated else plan

    def _planned(self, files: tuple[TickFile, ...]) -> _Day:
        rows = [file.rows for file in files]
        # A filter makes the number of rows an upper bound only.
        filtered = self.symbols is not None or (self.day is not None and any(file.day is None for file in files))
        known = not filtered and None not in rows
        return _Day(files, sum(count or 0 for count in rows) if known else None)

    def _identity(self, run: str) -> int:
        files = [(file.path.name, file.path.stat().st_size) for part in self._plan for file in part.files]
        what = [files, None if self.day is None else self.day.isoformat(), self.symbols, run]
        return int.from_bytes(hashlib.sha256(json.dumps(what).encode()).digest()[:4], "little")

    def _check_symbols(self) -> None:
        if self.symbols is None:
            return
        there = {name for part in self._plan for file in part.files for name in read_symbols(file)}
        missing = sorted(set(self.symbols) - there)
        if missing:
            raise SourceError(f"no ticks of {', '.join(missing)}; there are {', '.join(sorted(there))}")

    def _load(self, part: _Day) -> Records:
        pieces: list[Records] = []
        codes: list[NDArray[np.int64]] = []
        code_of: dict[str, int] = {}
        other_days: set[date] = set()
        for file in part.files:
            read = read_ticks(file)
            keep = np.ones(len(read.ticks), np.bool_)
            if self.symbols is not None:
                keep &= np.isin(read.names, self.symbols)[read.codes]
            if self.day is not None and file.day is None:
                days = read.ticks["event_ns"] // _DAY_NS
                other_days |= {_EPOCH + timedelta(int(number)) for number in np.unique(days)}
                keep &= days == (self.day - _EPOCH).days
            pieces.append(read.ticks if keep.all() else read.ticks[keep])
            new_codes = np.array([code_of.setdefault(name, len(code_of)) for name in read.names], np.int64)
            codes.append(new_codes[read.codes[keep]])
        ticks, symbol_codes = np.concatenate(pieces), np.concatenate(codes)
        pieces.clear()
        if self.day is not None and len(ticks) == 0:
            raise SourceError(f"no ticks of {self.day}; there are {_listed(sorted(other_days))}")
        # Stable: what stands first in `pieces` (quotes, then by path) stays first at the same nanosecond.
        order = np.argsort(ticks["event_ns"], kind="stable")
        ticks, symbol_codes = np.take(ticks, order), symbol_codes[order]
        _fill_sides(ticks, symbol_codes, len(code_of))
        return ticks


def _listed(days: Sequence[date]) -> str:
    return ", ".join(day.isoformat() for day in days) if days else "no days at all"


def _fill_sides(ticks: Records, codes: NDArray[np.int64], symbols: int) -> None:
    """Infer the sides of the trades that have none, symbol by symbol, in place."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=symbols))
    for rows in np.split(order, ends[:-1]):
        kinds = ticks["kind"][rows]
        trades = rows[kinds == TickKind.TRADE]
        quotes = rows[kinds == TickKind.QUOTE]
        sides = ticks["side"][trades]
        if np.all(sides != 0):
            continue
        inferred = infer_sides(
            ticks["event_ns"][trades],
            ticks["price"][trades],
            ticks["event_ns"][quotes],
            ticks["bid"][quotes],
            ticks["ask"][quotes],
        )
        ticks["side"][trades] = np.where(sides != 0, sides, inferred)
