"""What a reader wants to follow, and what a new connection is asked for so that nothing is missed. Pure."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from exporters.client.continuity import Had
from exporters.feed_messages import ModeName
from exporters.feed_requests import Subscribe, Unsubscribe, parse_request
from exporters.feed_subscriptions import MODE_NAMES, Subscriptions
from exporters.protocol import MAX_INBOUND_BYTES, MAX_NAMED_SYMBOLS, BadMessage, Mode
from stream.errors import FeedRefused

MODES: Final = {name: mode for mode, name in MODE_NAMES.items()}
# A replay that stands in for a resume begins so long before the newest that came: a partition may be behind others.
_MARGIN_NS: Final = 10_000_000_000


@dataclass(frozen=True, eq=False)
class Ask:
    """A request to follow, without its id."""

    channel: str
    symbols: tuple[str, ...]
    mode: ModeName
    throttle_ms: int | None = None
    epoch: str = ""
    after: Mapping[bytes, Had] = field(default_factory=dict)  # resume after these
    replay_from_ns: int | None = None
    is_wanted: bool = False  # a replay that the reader wants; else one that stands in for a resume
    origin: "Ask | None" = None  # as the reader wanted it, where this asks for more

    def message(self, message_id: int) -> dict[str, Any]:
        """Return it as it goes over the wire."""
        message: dict[str, Any] = {
            "op": "subscribe",
            "id": message_id,
            "channel": self.channel,
            "symbols": self.symbols,
            "mode": self.mode,
        }
        if self.throttle_ms is not None:
            message["throttle_ms"] = self.throttle_ms
        if self.replay_from_ns is not None:
            message["replay_from_ns"] = self.replay_from_ns
        elif self.after:
            seqs = {symbol.decode(): had.seq for symbol, had in self.after.items()}
            message["resume"] = {"epoch": self.epoch, "seqs": seqs}
        return message

    @property
    def request(self) -> Subscribe:
        """What it is to a table of subscriptions."""
        return Subscribe(None, self.symbols, MODES[self.mode], self.channel, self.throttle_ms)

    @functools.cached_property
    def names(self) -> "Names":
        """What it is about."""
        return Names(self.symbols)


class Names:
    """Names, prefixes such as ``BTC*``, and ``*`` for all."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._prefixes = tuple(name[:-1] for name in self._names if name[-1:] == "*")

    def cover(self, name: str) -> bool:
        """Return whether they are about a symbol, or about all of a prefix."""
        return name in self._names or name.removesuffix("*").startswith(self._prefixes)


class Wants:
    """What is wanted of all channels."""

    def __init__(self) -> None:
        """Want nothing."""
        self.channels: dict[str, Subscriptions] = {}
        self._replays: list[Ask] = []  # not done yet

    def __bool__(self) -> bool:
        return any(self.channels.values())

    def add(self, ask: Ask) -> None:
        """Want something more.

        Raises:
            FeedRefused: no gateway would do that; nothing has changed then.
        """
        _checked(ask.message(0))
        table = self.channels.setdefault(ask.channel, Subscriptions())
        try:
            table.subscribe(ask.request)
        except BadMessage as error:
            raise FeedRefused(str(error), error.code) from None
        self._replays = [replay for replay in self._replays if not _is_part(replay, ask)]
        if ask.replay_from_ns is not None:
            self._replays.append(ask)

    def remove(self, channel: str, symbols: tuple[str, ...]) -> None:
        """Want something no more.

        Raises:
            FeedRefused: these are no names.
        """
        _checked({"op": "unsubscribe", "channel": channel, "symbols": symbols})
        if channel in self.channels:
            self.channels[channel].unsubscribe(Unsubscribe(None, symbols, channel))
        gone = Ask(channel, symbols, "full")
        self._replays = [replay for replay in self._replays if not _is_part(replay, gone)]

    def replayed(self, replay: Ask) -> bool:
        """Take note that a replay is done: from here on it is resumed like all else; return whether it was not."""
        was_open = replay in self._replays
        self._replays = [other for other in self._replays if other is not replay]
        return was_open

    def mode_of(self, channel: str, symbol: bytes) -> Mode:
        """Return how a symbol is wanted."""
        table = self.channels.get(channel)
        return Mode.NONE if table is None else table.choice_of(symbol).mode

    def asks(self, channel: str, epoch: str | None, had: Mapping[bytes, Had], newest_ns: int) -> Iterator[Ask]:
        """Yield what to ask a connection for, so that a channel goes on after what came.

        Args:
            channel: which.
            epoch: of what came.
            had: what came last of each symbol.
            newest_ns: the newest time of anything that came.
        """
        table = self.channels.get(channel)
        if not table:
            return
        replays = {replay: list(replay.symbols) for replay in self._replays if replay.channel == channel}
        modes: dict[tuple[ModeName, int | None], list[str]] = {}
        for name, followed in table.listing().items():
            names = modes.setdefault((followed["mode"], followed["throttle_ms"]), [])
            if followed["mode"] == "full":
                # What a replay brings is asked for with it: asked for alone it would come without its past.
                names = next((found for replay, found in replays.items() if replay.names.cover(name)), names)
            names.append(name)
        asks = [
            replace(replay, symbols=tuple(dict.fromkeys(names))[:MAX_NAMED_SYMBOLS], origin=replay)
            for replay, names in replays.items()
        ]
        for (mode, throttle_ms), names in modes.items():
            for start in range(0, len(names), MAX_NAMED_SYMBOLS):
                part = Ask(channel, tuple(names[start : start + MAX_NAMED_SYMBOLS]), mode, throttle_ms)
                asks.append(_resuming(part, table, epoch, had, newest_ns, replays) if mode == "full" else part)
        # A gateway lets go of the past of what is asked for anew, so what may cover more goes first.
        yield from sorted(asks, key=lambda ask: min(_width(name) for name in ask.symbols))


def _checked(message: Mapping[str, Any]) -> None:
    """Read a request as a gateway does.

    Raises:
        FeedRefused: it would refuse it.
    """
    try:
        parse_request(orjson.dumps(message).decode())
    except BadMessage as error:
        raise FeedRefused(str(error), error.code) from None


def _resuming(
    ask: Ask,
    table: Subscriptions,
    epoch: str | None,
    had: Mapping[bytes, Had],
    newest_ns: int,
    replays: Iterable[Ask],
) -> Ask:
    after: dict[bytes, Had] = {}
    for symbol, last in had.items():
        name = symbol.decode()
        is_replayed = any(replay.names.cover(name) for replay in replays)
        if ask.names.cover(name) and not is_replayed and table.choice_of(symbol).mode is Mode.FULL:
            after[symbol] = last
    if epoch is None or not after:
        return ask
    resuming = Ask(ask.channel, ask.symbols, "full", epoch=epoch, after=after)
    if len(after) <= MAX_NAMED_SYMBOLS and len(orjson.dumps(resuming.message(1 << 32))) <= MAX_INBOUND_BYTES:
        return resuming
    # More than a request can hold: all since then, of which we drop what came already.
    return Ask(ask.channel, ask.symbols, "full", replay_from_ns=max(0, newest_ns - _MARGIN_NS))


def _is_part(replay: Ask, ask: Ask) -> bool:
    """Whether another request takes a replay's place, as a gateway sees it."""
    return replay.channel == ask.channel and all(ask.names.cover(name) for name in replay.symbols)


def _width(name: str) -> int:
    return len(name) - 1 if name[-1] == "*" else 1000
