"""The language of the feed: what a client may say and what it is told. Pure: bytes in, values out, and back.

Every message is one JSON object in one text frame. Clients send an ``op`` and may add an ``id``, which the answer
repeats; we send a ``type``. Names and units are those of the records: ``_ns`` is nanoseconds since 1970 UTC. Within
a schema version messages and keys are only added: a client ignores what it does not know.

    client                                              server
                                                        hello
    {"op": "auth", "token": ...}                        authorised
    {"op": "subscribe", "channel": "prediction",        subscribed, snapshot..., then for each symbol
     "symbols": ["AIG", "*"], "mode": "full"}           prediction, prediction, ...
    {"op": "subscribe", "channel": "status"}            subscribed, status once a second
    {"op": "unsubscribe", "channel": "prediction"}      unsubscribed
    {"op": "list"}                                      subscriptions
    {"op": "ping"}                                      pong
                                                        heartbeat once a second, reset, warning, error, going_away
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from stream.errors import RecordError, TickloomError
from stream.records import encode_symbol

SCHEMA_VERSION: Final = 1
ALL: Final = "*"
PREDICTION_CHANNEL: Final = "prediction"
STATUS_CHANNEL: Final = "status"
CHANNELS: Final = (PREDICTION_CHANNEL, STATUS_CHANNEL)
MODES: Final = ("full", "latest")

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_SYMBOLS: Final = 2_000  # named in one message
MAX_ID_CHARACTERS: Final = 64
MAX_EVERY_MS: Final = 60_000
SNAPSHOT_PREDICTIONS: Final = 500  # in one message of a snapshot

# Why we close a connection (RFC 6455 leaves 4000 to 4999 to applications).
CLOSE_GOING_AWAY: Final = 1001
CLOSE_SLOW: Final = 4008
CLOSE_NOT_AUTHORISED: Final = 4401
CLOSE_IDLE: Final = 4408
CLOSE_TOO_MANY: Final = 4429

Id = str | int | None
Mode = Literal["full", "latest"]


class ProtocolError(TickloomError):
    """A client said something that we do not do. ``code`` is for programs, the text for people."""

    def __init__(self, code: str, message: str, request_id: Id = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


@dataclass(frozen=True)
class Auth:
    """The client shows its token."""

    id: Id
    token: str


@dataclass(frozen=True)
class Subscribe:
    """The client wants a channel; ``symbols`` may hold `ALL`, and is empty for a channel without symbols."""

    id: Id
    channel: str
    symbols: tuple[str, ...]
    mode: Mode
    every_ms: int


@dataclass(frozen=True)
class Unsubscribe:
    """The client wants less; no symbols means all that it has."""

    id: Id
    channel: str
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class ListSubscriptions:
    """The client asks what it has, and what there is."""

    id: Id


@dataclass(frozen=True)
class Ping:
    """The client asks for a sign of life."""

    id: Id


Request = Auth | Subscribe | Unsubscribe | ListSubscriptions | Ping

_KEYS: Final = {
    "auth": {"token"},
    "subscribe": {"channel", "symbols", "mode", "every_ms"},
    "unsubscribe": {"channel", "symbols"},
    "list": set[str](),
    "ping": set[str](),
}


def parse(message: str | bytes) -> Request:
    """Return what a client said.

    Raises:
        ProtocolError: it is not one of the requests; the text says what would be right.
    """
    if isinstance(message, bytes):
        raise ProtocolError("bad_json", "requests are JSON in text frames, not binary frames")
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("bad_json", f"a request is a JSON object: {error}") from None
    if not isinstance(said, dict):
        raise ProtocolError("bad_request", f"a request is a JSON object, not {type(said).__name__}")
    request_id = _id(said)
    op = said.get("op")
    if not isinstance(op, str) or op not in _KEYS:
        raise ProtocolError("unknown_op", f"op is one of {', '.join(_KEYS)}, not {_shown(op)}", request_id)
    strange = said.keys() - _KEYS[op] - {"op", "id"}
    if strange:
        allowed = ", ".join(sorted(_KEYS[op] | {"op", "id"}))
        raise ProtocolError("bad_request", f"{op} has no key {_shown(min(strange))}; it has {allowed}", request_id)
    return _request(op, said, request_id)


def _request(op: str, said: dict[str, Any], request_id: Id) -> Request:
    match op:
        case "auth":
            if not isinstance(said.get("token"), str):
                raise ProtocolError("bad_request", "auth has a token, a string", request_id)
            return Auth(request_id, said["token"])
        case "subscribe":
            return _subscribe(said, request_id)
        case "unsubscribe":
            channel = _channel(said, request_id)
            return Unsubscribe(request_id, channel, _symbols(said, request_id) if "symbols" in said else ())
        case "list":
            return ListSubscriptions(request_id)
    return Ping(request_id)


def _subscribe(said: dict[str, Any], request_id: Id) -> Subscribe:
    channel = _channel(said, request_id)
    if channel == STATUS_CHANNEL:
        if said.keys() & {"symbols", "mode", "every_ms"}:
            raise ProtocolError("bad_request", "the channel status has no symbols, mode or every_ms", request_id)
        return Subscribe(request_id, channel, (), "latest", 0)
    if "symbols" not in said:
        raise ProtocolError("bad_symbol", 'symbols is a list such as ["AIG"], or ["*"] for all', request_id)
    mode = said.get("mode", "full")
    if mode not in MODES:
        raise ProtocolError("bad_mode", f"mode is full or latest, not {_shown(mode)}", request_id)
    every_ms = said.get("every_ms", 0)
    if type(every_ms) is not int or not 0 <= every_ms <= MAX_EVERY_MS or (every_ms and mode == "full"):
        right = f"every_ms is 0 to {MAX_EVERY_MS} and goes with mode latest"
        raise ProtocolError("bad_mode", f"{right}, not {_shown(every_ms)} with {mode}", request_id)
    return Subscribe(request_id, channel, _symbols(said, request_id), mode, every_ms)


def _id(said: dict[str, Any]) -> Id:
    request_id = said.get("id")
    if request_id is None or type(request_id) is int:
        return request_id
    if isinstance(request_id, str) and len(request_id) <= MAX_ID_CHARACTERS:
        return request_id
    raise ProtocolError(
        "bad_request", f"id is a number or up to {MAX_ID_CHARACTERS} characters, not {_shown(request_id)}"
    )


def _channel(said: dict[str, Any], request_id: Id) -> str:
    channel = said.get("channel")
    if not isinstance(channel, str) or channel not in CHANNELS:
        raise ProtocolError(
            "unknown_channel", f"channel is one of {', '.join(CHANNELS)}, not {_shown(channel)}", request_id
        )
    return channel


def _symbols(said: dict[str, Any], request_id: Id) -> tuple[str, ...]:
    symbols = said["symbols"]
    if not isinstance(symbols, list) or not 1 <= len(symbols) <= MAX_SYMBOLS:
        raise ProtocolError("bad_symbol", f"symbols is a list of 1 to {MAX_SYMBOLS} symbols", request_id)
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise ProtocolError("bad_symbol", f"a symbol is a string, not {_shown(symbol)}", request_id)
        try:
            encode_symbol(symbol)
        except RecordError as error:
            raise ProtocolError("bad_symbol", str(error)[:200], request_id) from None
    return tuple(dict.fromkeys(symbols))


def _shown(value: object) -> str:
    return repr(value)[:60]


def encode(kind: str, **values: Any) -> bytes:
    """Return a message of type ``kind``."""
    return orjson.dumps({"type": kind, **values}, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_error(error: ProtocolError) -> bytes:
    """Return the answer to a request that we do not do."""
    return encode("error", id=error.request_id, code=error.code, message=str(error))


def frame(payload: bytes) -> bytes:
    """Return ``payload`` as an unmasked WebSocket text frame, made once for all who get it (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
