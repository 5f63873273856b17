"""What `tickloom listen` shows: a table that lives, lines for people, or JSON."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, Self

import numpy as np
import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table

from exporters.client import Batch, Disconnected, Gap, Item, Reset
from exporters.feed_channels import CHANNELS

_DRAW_EVERY_S: Final = 0.1
_ROWS: Final = 40

# What people see of each kind of message, and how it is written.
_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "predictions": {
        "ref_price": ",.6g",
        "p_down": ".1%",
        "p_flat": ".1%",
        "p_up": ".1%",
        "expected_return_bps": "+.2f",
        "seq": ",",
    },
    "ticks": {"kind": "", "price": ",.6g", "size": ",.6g", "bid": ",.6g", "ask": ",.6g", "source_seq": ","},
    "bars": {"open": ",.6g", "high": ",.6g", "low": ",.6g", "close": ",.6g", "ticks": ","},
    "events": {"event": "", "details": ""},
    "features": {"ref_price": ",.6g", "seq": ",", "values": ""},
}


class View(Protocol):
    """Where items go."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """End, and leave the terminal as it was."""
        ...

    def show(self, item: Item) -> None:
        """Show an item."""
        ...


def make_view(channel: str, as_json: bool) -> View:
    """Return a table where a person looks at it, else lines."""
    if as_json:
        return Lines(_json_lines)
    if sys.stdout.isatty():
        return LiveTable(channel)
    return Lines(_text_lines)


class Lines(AbstractContextManager["Lines"]):
    """A line for each message."""

    def __init__(self, make: Callable[[Item], list[str]]) -> None:
        """Show what ``make`` makes of an item."""
        self._make = make

    def __exit__(self, *_: object) -> None:
        """Nothing is left behind."""

    def show(self, item: Item) -> None:
        """Print an item."""
        lines = self._make(item)
        if lines:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()


class LiveTable(AbstractContextManager["LiveTable"]):
    """The newest of each symbol, drawn ten times a second at the most."""

    def __init__(self, channel: str) -> None:
        """Begin an empty one."""
        self._channel = channel
        self._newest: dict[str, dict[str, Any]] = {}
        self._messages = 0
        self._told = ""
        self._drawn_s = 0.0
        self._live = Live(console=Console(), auto_refresh=False)

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.__enter__()
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, with the last state on it."""
        self._draw()
        self._live.__exit__(None, None, None)

    def show(self, item: Item) -> None:
        """Take an item in, and draw where it is time to."""
        if isinstance(item, Batch):
            self._messages += len(item)
            newest = {symbol: index for index, symbol in enumerate(item.records["symbol"].tolist())}
            for row in item.at(np.array(sorted(newest.values()))).rows():
                self._newest[row["symbol"]] = row
        else:
            self._told = _told(item) or ""
        if time.monotonic() - self._drawn_s >= _DRAW_EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        channel = CHANNELS[self._channel]
        columns = _COLUMNS[channel.plural]
        table = Table(title=f"{self._channel}: {self._messages:,} messages", title_justify="left", expand=True)
        table.add_column("symbol")
        for name in (*columns, "time"):
            table.add_column(name.replace("_", " "), justify="right")
        for symbol in sorted(self._newest)[:_ROWS]:
            row = self._newest[symbol]
            cells = [_cell(row[name], form) for name, form in columns.items()]
            table.add_row(symbol, *cells, _clock(row[channel.time_field]))
        more = len(self._newest) - _ROWS
        table.caption = "; ".join(text for text in (f"and {more} more" if more > 0 else "", self._told) if text)
        self._live.update(table, refresh=True)


def _json_lines(item: Item) -> list[str]:
    if isinstance(item, Batch):
        return [line.decode() for line in item.lines()]
    match item:
        case Gap():
            told: dict[str, Any] = {"type": "gap", "symbol": item.symbol, "after_seq": item.after_seq}
            told["before_seq"] = item.before_seq
        case Reset():
            told = {"type": "reset", "symbols": item.symbols, "reason": item.reason}
        case Disconnected():
            told = {"type": "disconnected", "url": item.url, "why": item.why}
        case _:
            return []
    return [orjson.dumps(told).decode()]


def _text_lines(item: Item) -> list[str]:
    if not isinstance(item, Batch):
        told = _told(item)
        return [] if told is None else [f"! {told}"]
    channel = CHANNELS[item.channel]
    columns = _COLUMNS[channel.plural]
    lines = []
    for row in item.rows():
        shown = (f"{name} {_cell(row[name], form)}" for name, form in columns.items() if row[name] is not None)
        lines.append(f"{_clock(row[channel.time_field])} {row['symbol']:12} {'  '.join(shown)}")
    return lines


def _told(item: Item) -> str | None:
    match item:
        case Gap():
            return f"{item.symbol}: missing between seq {item.after_seq} and {item.before_seq}"
        case Reset():
            return f"begins anew ({item.reason}): {', '.join(item.symbols[:10])}"
        case Disconnected():
            return f"{item.url}: {item.why}"
        case _:
            return None


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    return orjson.dumps(value).decode() if isinstance(value, dict) else format(value, form)


def _clock(at_ns: int) -> str:
    return str(np.datetime64(at_ns, "ns").astype("datetime64[ms]")).partition("T")[2]
