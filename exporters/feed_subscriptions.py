"""What one client follows on one channel: names, prefixes such as ``BTC*``, and ``*`` for the rest. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from exporters.feed_messages import Followed, ModeName
from exporters.feed_requests import Subscribe, Unsubscribe, too_many_symbols
from exporters.protocol import MAX_NAMED_SYMBOLS, MAX_PREFIXES, BadMessage, Code, Mode

MODE_NAMES: Final[dict[Mode, ModeName]] = {
    Mode.LATEST: "latest",
    Mode.FULL: "full",
    Mode.THROTTLE: "throttle",
}


class Choice(NamedTuple):
    """How a symbol is followed."""

    mode: Mode
    interval_ns: int = 0  # of Mode.THROTTLE

    def followed(self) -> Followed:
        """Return it as clients see it."""
        throttle_ms = self.interval_ns // 1_000_000 if self.mode is Mode.THROTTLE else None
        return {"mode": MODE_NAMES[self.mode], "throttle_ms": throttle_ms}


NOT_FOLLOWED: Final = Choice(Mode.NONE)


class Subscriptions:
    """Of several that fit a symbol counts its own name, else the longest prefix, whichever was asked for first."""

    def __init__(self) -> None:
        self._named: dict[bytes, Choice] = {}
        self._prefixes: dict[bytes, Choice] = {}  # the longest first; the empty one is `*`

    def __bool__(self) -> bool:
        return bool(self._named or self._prefixes)

    def subscribe(self, request: Subscribe) -> None:
        """Follow the symbols of a request.

        Raises:
            BadMessage: the client would follow too many; nothing has changed then.
        """
        choice = Choice(request.mode, (request.throttle_ms or 0) * 1_000_000)
        encoded = [symbol.encode() for symbol in request.symbols]
        named = self._named | {name: choice for name in encoded if name[-1:] != b"*"}
        prefixes = self._prefixes | {name[:-1]: choice for name in encoded if name[-1:] == b"*"}
        if len(named) > MAX_NAMED_SYMBOLS:
            error = too_many_symbols(len(named))
            error.message_id = request.message_id
            raise error
        if len(prefixes) > MAX_PREFIXES:
            text = f"{len(prefixes)} prefixes; a client follows up to {MAX_PREFIXES} of a channel"
            raise BadMessage(Code.TOO_MANY_SYMBOLS, text, request.message_id)
        self._named = named
        self._prefixes = dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))

    def unsubscribe(self, request: Unsubscribe) -> None:
        """Stop following the symbols of a request; a symbol that is not followed by name is left alone."""
        for symbol in request.symbols:
            name = symbol.encode()
            if name[-1:] == b"*":
                self._prefixes.pop(name[:-1], None)
            else:
                self._named.pop(name, None)

    def choice_of(self, symbol: bytes) -> Choice:
        """Return how a symbol is followed."""
        named = self._named.get(symbol)
        if named is not None:
            return named
        for prefix, choice in self._prefixes.items():
            if symbol.startswith(prefix):
                return choice
        return NOT_FOLLOWED

    def choices_of(self, symbols: Iterable[bytes]) -> list[Choice]:
        """Return how each symbol is followed."""
        return [self.choice_of(symbol) for symbol in symbols]

    def names(self) -> list[str]:
        """Return everything that was asked for, by name."""
        return [*(f"{prefix.decode()}*" for prefix in self._prefixes), *(name.decode() for name in self._named)]

    def listing(self) -> dict[str, Followed]:
        """Return how everything that was asked for is followed, by name."""
        prefixes = {f"{prefix.decode()}*": choice.followed() for prefix, choice in self._prefixes.items()}
        return prefixes | {symbol.decode(): choice.followed() for symbol, choice in self._named.items()}
