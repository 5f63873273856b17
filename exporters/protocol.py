"""What clients of the feed say, what they subscribed to, and how a close is coded. Pure: no I/O.

    client                                                                   gateway
    {"op":"subscribe","id":1,"channel":"prediction","symbols":["AIG"],"mode":"full"}  ─▶
                                            ◀─ {"type":"subscribed","id":1,...}, {"type":"snapshot",...}, ...
    {"op":"unsubscribe","id":2,"channel":"prediction","symbols":["AIG"]}  ─▶ ◀─ {"type":"unsubscribed","id":2,...}
    {"op":"list","id":3}  ─▶                                                 ◀─ {"type":"subscriptions","id":3,...}
    {"op":"ping","id":4}  ─▶                                                 ◀─ {"type":"pong","id":4,...}
    {"op":"auth","id":5,"token":"..."}  ─▶                                   ◀─ {"type":"authenticated","id":5}

A message that cannot be understood is answered with ``{"type":"error","code","message","id"}`` and changes nothing.
Evolution: new message types and new fields come without notice, and clients ignore what they do not know; nothing
is renamed or removed without another SCHEMA_VERSION.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

import orjson

from stream.errors import RecordError
from stream.records import encode_symbol

SCHEMA_VERSION: Final = 1
CHANNEL: Final = "prediction"
EVERYTHING: Final = "*"

# A request to follow 2,000 symbols by name has about 16 KiB; the rest is room.
MAX_INBOUND_BYTES: Final = 64 << 10
# A client asks a few times when it connects and hardly ever after; more than this is a loop gone wild.
MAX_INBOUND_PER_S: Final = 20
# Whoever wants more than this wants all of them, with "*".
MAX_NAMED_SYMBOLS: Final = 2000
_MAX_ID_CHARACTERS: Final = 64

MessageId = int | str | None


class Close(IntEnum):
    """Why we closed. 4xxx are ours; the last two digits follow HTTP where it has a like thing."""

    GOING_AWAY = 1001
    INTERNAL = 1011
    UNAUTHORISED = 4401
    NO_SUBSCRIPTION = 4408
    SLOW = 4008
    TOO_MANY_MESSAGES = 4029


class Code(StrEnum):
    """What was wrong with a message. On the wire: append only."""

    NOT_JSON = "not_json"
    NOT_TEXT = "not_text"
    BAD_REQUEST = "bad_request"
    UNKNOWN_OP = "unknown_op"
    UNKNOWN_CHANNEL = "unknown_channel"
    UNKNOWN_MODE = "unknown_mode"
    BAD_SYMBOL = "bad_symbol"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    UNAUTHORISED = "unauthorised"
    TOO_MANY_MESSAGES = "too_many_messages"


class Mode(IntEnum):
    """How a symbol is followed."""

    NONE = 0
    LATEST = 1  # the newest as soon as the client can take it; what came between is skipped and counted
    FULL = 2  # every one, in order; a client that cannot keep up is closed


_MODES: Final = {"latest": Mode.LATEST, "full": Mode.FULL}


class BadMessage(Exception):
    """A client's message that is answered with an error."""

    def __init__(self, code: Code, message: str, message_id: MessageId = None) -> None:
        super().__init__(message)
        self.code = code
        self.message_id = message_id

    def reply(self) -> dict[str, Any]:
        """Return the answer to the client."""
        return {"type": "error", "code": self.code, "message": str(self), "id": self.message_id}


@dataclass(frozen=True)
class Subscribe:
    """Follow symbols; another mode for a symbol that is followed already takes its place."""

    message_id: MessageId
    symbols: tuple[str, ...]
    mode: Mode


@dataclass(frozen=True)
class Unsubscribe:
    """Stop following symbols (those that were subscribed by this name: ``*`` is a name of its own)."""

    message_id: MessageId
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class ListSubscriptions:
    """Tell what is followed."""

    message_id: MessageId


@dataclass(frozen=True)
class Ping:
    """Tell the time, and that both ends are there."""

    message_id: MessageId


@dataclass(frozen=True)
class Auth:
    """Show the token; for clients that cannot set a header, which is every browser."""

    message_id: MessageId
    token: str


Request = Subscribe | Unsubscribe | ListSubscriptions | Ping | Auth

_FIELDS: Final = {
    "subscribe": {"op", "id", "channel", "symbols", "mode"},
    "unsubscribe": {"op", "id", "channel", "symbols"},
    "list": {"op", "id"},
    "ping": {"op", "id"},
    "auth": {"op", "id", "token"},
}


def parse_request(raw: str | bytes) -> Request:
    """Return what a client's message asks for.

    Raises:
        BadMessage: it cannot be understood; says what was seen and what would be right.
    """
    if isinstance(raw, bytes):
        raise BadMessage(Code.NOT_TEXT, "requests are JSON in text messages; this was a binary message")
    try:
        message = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadMessage(Code.NOT_JSON, f"this is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadMessage(Code.BAD_REQUEST, f'a request is an object with "op", not {_seen(message)}')
    message_id = _message_id(message)
    try:
        return _request(message, message_id)
    except BadMessage as error:
        error.message_id = message_id
        raise


def _request(message: dict[str, Any], message_id: MessageId) -> Request:
    op = message.get("op")
    if not isinstance(op, str) or op not in _FIELDS:
        raise BadMessage(Code.UNKNOWN_OP, f'"op" is one of {", ".join(_FIELDS)}, not {_seen(op)}')
    unknown = sorted(message.keys() - _FIELDS[op])
    if unknown:
        right = ", ".join(sorted(_FIELDS[op]))
        raise BadMessage(Code.BAD_REQUEST, f"{op} has the fields {right}; not {_seen(unknown[0])}")
    match op:
        case "subscribe":
            return Subscribe(message_id, _symbols(message), _mode(message))
        case "unsubscribe":
            return Unsubscribe(message_id, _symbols(message))
        case "list":
            return ListSubscriptions(message_id)
        case "ping":
            return Ping(message_id)
        case _:
            token = message.get("token")
            if not isinstance(token, str):
                # What was sent may be a token gone wrong: it is not repeated.
                raise BadMessage(Code.BAD_REQUEST, 'auth needs "token", a string')
            return Auth(message_id, token)


def _message_id(message: dict[str, Any]) -> MessageId:
    message_id = message.get("id")
    if message_id is None or (isinstance(message_id, int) and not isinstance(message_id, bool)):
        return message_id
    if isinstance(message_id, str) and len(message_id) <= _MAX_ID_CHARACTERS:
        return message_id
    raise BadMessage(
        Code.BAD_REQUEST,
        f'"id" is an integer, null, or a string of up to {_MAX_ID_CHARACTERS} characters, not {_seen(message_id)}',
    )


def _mode(message: dict[str, Any]) -> Mode:
    mode = message.get("mode", "latest")
    if not isinstance(mode, str) or mode not in _MODES:
        raise BadMessage(Code.UNKNOWN_MODE, f'"mode" is "full" or "latest" (when left out), not {_seen(mode)}')
    return _MODES[mode]


def _symbols(message: dict[str, Any]) -> tuple[str, ...]:
    channel = message.get("channel", CHANNEL)
    if channel != CHANNEL:
        raise BadMessage(Code.UNKNOWN_CHANNEL, f'"channel" is "{CHANNEL}", not {_seen(channel)}')
    symbols = message.get("symbols")
    if not isinstance(symbols, list) or not symbols:
        raise BadMessage(
            Code.BAD_REQUEST, f'"symbols" is a list of names, or ["{EVERYTHING}"] for all, not {_seen(symbols)}'
        )
    if len(symbols) > MAX_NAMED_SYMBOLS:
        raise _too_many(len(symbols))
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise BadMessage(Code.BAD_SYMBOL, f"a symbol is a string, not {_seen(symbol)}")
        try:
            encode_symbol(symbol)
        except RecordError as error:
            raise BadMessage(Code.BAD_SYMBOL, str(error)[:300]) from None
    return tuple(dict.fromkeys(symbols))


def _too_many(count: int) -> BadMessage:
    return BadMessage(
        Code.TOO_MANY_SYMBOLS,
        f'{count} symbols; a client follows up to {MAX_NAMED_SYMBOLS} by name, or all with "{EVERYTHING}"',
    )


def _seen(value: object) -> str:
    text = "nothing" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


class Subscriptions:
    """What one client follows. A symbol by its name comes before ``*``, whichever was asked for first."""

    def __init__(self) -> None:
        self._named: dict[bytes, Mode] = {}
        self._others = Mode.NONE  # what `*` stands for

    def __bool__(self) -> bool:
        return bool(self._named) or self._others is not Mode.NONE

    def subscribe(self, request: Subscribe) -> None:
        """Follow the symbols of a request.

        Raises:
            BadMessage: the client would follow too many by name; nothing has changed then.
        """
        named = {symbol.encode(): request.mode for symbol in request.symbols if symbol != EVERYTHING}
        count = len(self._named.keys() | named.keys())
        if count > MAX_NAMED_SYMBOLS:
            error = _too_many(count)
            error.message_id = request.message_id
            raise error
        self._named |= named
        if EVERYTHING in request.symbols:
            self._others = request.mode

    def unsubscribe(self, request: Unsubscribe) -> None:
        """Stop following the symbols of a request; a symbol that is not followed by name is left alone."""
        for symbol in request.symbols:
            if symbol == EVERYTHING:
                self._others = Mode.NONE
            else:
                self._named.pop(symbol.encode(), None)

    def mode_of(self, symbol: bytes) -> Mode:
        """Return how a symbol is followed."""
        return self._named.get(symbol, self._others)

    def modes_of(self, symbols: Iterable[bytes]) -> list[Mode]:
        """Return how each symbol is followed."""
        return [self._named.get(symbol, self._others) for symbol in symbols]

    def listing(self) -> dict[str, str]:
        """Return the mode of everything that was asked for, by name."""
        everything = {} if self._others is Mode.NONE else {EVERYTHING: self._others.name.lower()}
        return everything | {symbol.decode(): mode.name.lower() for symbol, mode in self._named.items()}


class InboundRate:
    """A bucket of MAX_INBOUND_PER_S tokens that fills at that rate: says whether a message is one too many."""

    def __init__(self, now_s: float) -> None:
        self._tokens = float(MAX_INBOUND_PER_S)
        self._at_s = now_s

    def allows(self, now_s: float) -> bool:
        """Take a token; return whether there was one."""
        refill = (now_s - self._at_s) * MAX_INBOUND_PER_S
        self._tokens, self._at_s = min(self._tokens + refill, float(MAX_INBOUND_PER_S)), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
