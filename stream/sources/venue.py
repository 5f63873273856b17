"""What an exchange must be able to do for a live source, and the events that its messages become. Pure, no I/O.

A `Venue` knows the exchange's addresses, its subscription messages and its formats. It turns each message into
events and keeps just enough memory to see what is missing: the last trade id and the last quote number of each
symbol. That memory outlives connections, so that after a reconnect the number of missed trades is exact.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

# Three centuries: what is beyond it is no time stamp, and would not fit into 64 bits of nanoseconds.
_LATEST_NS = 2**63 - 1


class Trade(NamedTuple):
    """A trade, ready for a TICK."""

    symbol: bytes
    event_ns: int
    price: float
    size: float
    side: int  # aggressor: +1 buyer, -1 seller


class Quote(NamedTuple):
    """A best bid and ask, ready for a TICK; NaN where a side or a size is not told."""

    symbol: bytes
    event_ns: int
    bid: float
    ask: float
    bid_size: float
    ask_size: float


class Gap(NamedTuple):
    """Something is missing."""

    symbol: bytes
    reason: str  # "trade_ids", "renumbered"; the session adds "reconnect"
    missed: int  # trades known to be missing, 0 where their number is not known
    detail: str


class Ignored(NamedTuple):
    """A message that is sound and makes no tick: a duplicate, another type."""

    reason: str
    symbol: bytes = b""


class Bad(NamedTuple):
    """A message that cannot be read."""

    reason: str
    detail: str
    symbol: bytes = b""


class Refused(NamedTuple):
    """The exchange did not accept a subscription."""

    symbols: tuple[str, ...]  # in the exchange's spelling; empty where it does not name them
    why: str


class Confirmed(NamedTuple):
    """The exchange accepted a subscription."""


class Ending(NamedTuple):
    """The exchange will close this connection soon: open another one."""

    why: str


Event = Trade | Quote | Gap | Ignored | Bad | Refused | Confirmed | Ending


@dataclass(frozen=True)
class Route:
    """One connection that a venue needs."""

    label: str  # "" where the venue needs one connection only
    url: str


class Venue(Protocol):
    """An exchange, without I/O."""

    @property
    def name(self) -> str:
        """What we call it."""
        ...

    @property
    def routes(self) -> Sequence[Route]:
        """The connections that it needs."""
        ...

    @property
    def symbols(self) -> Mapping[str, bytes]:
        """The symbols in the exchange's spelling, and in ours."""
        ...

    @property
    def silence_s(self) -> float:
        """A connection without any message for so long is dead."""
        ...

    @property
    def max_age_s(self) -> float:
        """The exchange closes older connections soon; infinite where it does not."""
        ...

    @property
    def pause_s(self) -> float:
        """Between two messages of ours, so as to stay below the exchange's limit."""
        ...

    def subscriptions(self, route: Route, without: Set[str]) -> Sequence[str]:
        """Return the messages that subscribe to everything on a route but the symbols ``without``."""
        ...

    def connected(self) -> None:
        """Note that a new connection begins: quote numbers may start anew."""
        ...

    def parse(self, message: bytes, recv_ns: int) -> Sequence[Event]:
        """Return what a message says, in order. It never raises: what cannot be read is `Bad`."""
        ...


@dataclass
class Numbers:
    """The last numbers seen of each symbol: they tell gaps from duplicates."""

    _trades: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # symbol -> trade id, event_ns
    _quotes: dict[bytes, int] = field(default_factory=dict)

    def knows(self, symbol: bytes) -> bool:
        """Whether a trade of the symbol has been seen."""
        return symbol in self._trades

    def trade(self, symbol: bytes, number: int, event_ns: int) -> Gap | Ignored | None:
        """Take note of a trade; say what is missing before it, or that it is known (`Ignored`).

        A trade id at or below the last one is a duplicate, unless the trade is newer than the last one: then the
        exchange numbers anew, and to drop its trades for ever would be worse than one that counts twice.
        """
        last = self._trades.get(symbol)
        if last is not None and number <= last[0] and event_ns <= last[1]:
            return Ignored("duplicate_trade", symbol)
        self._trades[symbol] = (number, event_ns)
        if last is None or number == last[0] + 1:
            return None
        if number <= last[0]:
            return Gap(symbol, "renumbered", 0, f"trade ids went back from {last[0]} to {number}")
        return _missing(symbol, last[0], number)

    def claim(self, symbol: bytes, number: int) -> Gap | None:
        """Take the exchange's word that a trade with this id has happened before now; say what is missing."""
        last = self._trades.get(symbol)
        if last is None or number <= last[0]:
            return None
        self._trades[symbol] = (number, last[1])
        return _missing(symbol, last[0], number + 1)

    def quote(self, symbol: bytes, number: int) -> Ignored | None:
        """Take note of a quote; say when it is not newer than the last one."""
        if number <= self._quotes.get(symbol, -1):
            return Ignored("stale_quote", symbol)
        self._quotes[symbol] = number
        return None

    def forget_quotes(self) -> None:
        """Accept any quote number again."""
        self._quotes.clear()


def _missing(symbol: bytes, last: int, number: int) -> Gap:
    return Gap(symbol, "trade_ids", number - last - 1, f"after trade {last} came {number}")


def number_of(value: Any) -> float:
    """Return a finite number that JSON gives as a string or a number.

    Raises:
        ValueError: not a finite number.
        TypeError: not a string or a number.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def whole(value: Any) -> int:
    """Return a JSON integer that is not negative.

    Raises:
        TypeError: not an integer.
        ValueError: negative.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


def checked_ns(event_ns: int) -> int:
    """Return a time in ns since 1970 UTC that fits a TICK.

    Raises:
        ValueError: it does not, or is not after 1970.
    """
    if not 0 < event_ns <= _LATEST_NS:
        raise ValueError(f"{event_ns} ns is not a time")
    return event_ns


def book_side(price: Any, size: Any) -> tuple[float, float]:
    """Return price and size of one side of the book: NaN for both where the side is empty.

    Args:
        price: 0 or None where nobody bids or asks.
        size: None where the venue does not tell.

    Raises:
        ValueError: not a finite number.
        TypeError: not a string or a number.
    """
    number = 0.0 if price is None else number_of(price)
    if number == 0.0:
        return math.nan, math.nan
    return number, math.nan if size is None else number_of(size)


def sample(message: bytes) -> str:
    """Return the beginning of a message, safe for a log."""
    return repr(message[:200])
