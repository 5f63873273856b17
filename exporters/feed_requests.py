"""From what a client sends to what it asks for, or to an error that says what would be right. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_type_hints

import orjson

from exporters import feed_messages as wire
from exporters.feed_messages import MessageId
from exporters.protocol import (
    EVERYTHING,
    MAX_NAMED_SYMBOLS,
    MAX_THROTTLE_MS,
    MIN_THROTTLE_MS,
    BadMessage,
    Code,
    Mode,
)
from stream.errors import RecordError
from stream.records import encode_symbol

_MAX_ID_CHARACTERS: Final = 64
_MAX_SEQ: Final = 1 << 63
_MODES: Final = {"latest": Mode.LATEST, "full": Mode.FULL, "throttle": Mode.THROTTLE}
CHANNEL_NAMES: Final[tuple[str, ...]] = get_args(wire.ChannelName)
DEFAULT_CHANNEL: Final = "prediction"


@dataclass(frozen=True)
class Resume:
    """Go on after the last seq of each symbol."""

    epoch: str
    seqs: Mapping[str, int]


@dataclass(frozen=True)
class Subscribe:
    """Follow symbols; another mode for a symbol that is followed already takes its place."""

    message_id: MessageId
    symbols: tuple[str, ...]
    mode: Mode
    channel: str = DEFAULT_CHANNEL
    throttle_ms: int | None = None  # of Mode.THROTTLE
    resume: Resume | None = None
    replay_from_ns: int | None = None


@dataclass(frozen=True)
class Unsubscribe:
    """Stop following symbols (those that were subscribed by this name: ``*`` is a name of its own)."""

    message_id: MessageId
    symbols: tuple[str, ...]
    channel: str = DEFAULT_CHANNEL


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
    """Show the token; for clients that cannot set a header, which is every browser, and to renew it."""

    message_id: MessageId
    token: str


Request = Subscribe | Unsubscribe | ListSubscriptions | Ping | Auth

# What each op may have: the fields of its wire type.
_FIELDS: Final = {
    get_args(get_type_hints(request)["op"])[0]: get_type_hints(request).keys() for request in get_args(wire.Request)
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


def too_many_symbols(count: int) -> BadMessage:
    """Return the error that says how many symbols may be followed by name."""
    return BadMessage(
        Code.TOO_MANY_SYMBOLS,
        f'{count} symbols; a client follows up to {MAX_NAMED_SYMBOLS} by name, or all with "{EVERYTHING}"',
    )


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
            return _subscribe(message, message_id)
        case "unsubscribe":
            return Unsubscribe(message_id, _symbols(message), _channel(message))
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


def _subscribe(message: dict[str, Any], message_id: MessageId) -> Subscribe:
    channel, symbols, mode = _channel(message), _symbols(message), _mode(message)
    resume, replay_from_ns = _resume(message), message.get("replay_from_ns")
    if replay_from_ns is not None and not _is_integer(replay_from_ns, 0, _MAX_SEQ):
        raise BadMessage(
            Code.BAD_REQUEST, f'"replay_from_ns" is ns since 1970, an integer, not {_seen(replay_from_ns)}'
        )
    if (resume is not None or replay_from_ns is not None) and mode is not Mode.FULL:
        raise BadMessage(Code.BAD_REQUEST, '"resume" and "replay_from_ns" are for "mode":"full"')
    if resume is not None and replay_from_ns is not None:
        raise BadMessage(Code.BAD_REQUEST, 'either "resume" or "replay_from_ns", not both')
    if resume is not None:
        other = next((symbol for symbol in resume.seqs if not _covers(symbols, symbol)), None)
        if other is not None:
            raise BadMessage(Code.BAD_REQUEST, f'"resume" is for what "symbols" names; not {_seen(other)}')
    return Subscribe(message_id, symbols, mode, channel, _throttle_ms(message, mode), resume, replay_from_ns)


def _covers(names: tuple[str, ...], symbol: str) -> bool:
    return any(symbol == name or (name[-1] == "*" and symbol.startswith(name[:-1])) for name in names)


def _resume(message: dict[str, Any]) -> Resume | None:
    resume = message.get("resume")
    if resume is None:
        return None
    right = '"resume" is {"epoch":"...","seqs":{"SYMBOL":seq,...}}'
    if not isinstance(resume, dict) or resume.keys() != {"epoch", "seqs"}:
        raise BadMessage(Code.BAD_REQUEST, f"{right}, not {_seen(resume)}")
    epoch, seqs = resume["epoch"], resume["seqs"]
    if not isinstance(epoch, str) or not isinstance(seqs, dict) or not seqs:
        raise BadMessage(Code.BAD_REQUEST, f"{right}, not {_seen(resume)}")
    if len(seqs) > MAX_NAMED_SYMBOLS:
        raise too_many_symbols(len(seqs))
    for symbol, seq in seqs.items():
        _check_symbol(symbol)
        if symbol.endswith("*"):
            raise BadMessage(Code.BAD_SYMBOL, f"a seq is of one symbol, not of {_seen(symbol)}")
        if not _is_integer(seq, 0, _MAX_SEQ):
            raise BadMessage(Code.BAD_REQUEST, f"a seq is an integer from 0 on, not {_seen(seq)}")
    return Resume(epoch, seqs)


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
        raise BadMessage(
            Code.UNKNOWN_MODE, f'"mode" is "full", "throttle" or "latest" (when left out), not {_seen(mode)}'
        )
    return _MODES[mode]


def _throttle_ms(message: dict[str, Any], mode: Mode) -> int | None:
    throttle_ms = message.get("throttle_ms")
    if mode is not Mode.THROTTLE:
        if throttle_ms is not None:
            raise BadMessage(Code.BAD_REQUEST, '"throttle_ms" is for "mode":"throttle"')
        return None
    if throttle_ms is None or not _is_integer(throttle_ms, MIN_THROTTLE_MS, MAX_THROTTLE_MS + 1):
        right = f"an integer from {MIN_THROTTLE_MS} to {MAX_THROTTLE_MS}"
        raise BadMessage(
            Code.BAD_REQUEST, f'"mode":"throttle" needs "throttle_ms", {right}, not {_seen(throttle_ms)}'
        )
    return int(throttle_ms)


def _channel(message: dict[str, Any]) -> str:
    channel = message.get("channel", DEFAULT_CHANNEL)
    if not isinstance(channel, str) or channel not in CHANNEL_NAMES:
        names = ", ".join(CHANNEL_NAMES)
        raise BadMessage(Code.UNKNOWN_CHANNEL, f'"channel" is one of {names}, not {_seen(channel)}')
    return channel


def _symbols(message: dict[str, Any]) -> tuple[str, ...]:
    symbols = message.get("symbols")
    if not isinstance(symbols, list) or not symbols:
        raise BadMessage(
            Code.BAD_REQUEST, f'"symbols" is a list of names, or ["{EVERYTHING}"] for all, not {_seen(symbols)}'
        )
    if len(symbols) > MAX_NAMED_SYMBOLS:
        raise too_many_symbols(len(symbols))
    for symbol in symbols:
        _check_symbol(symbol)
    return tuple(dict.fromkeys(symbols))


def _check_symbol(symbol: object) -> None:
    if not isinstance(symbol, str):
        raise BadMessage(Code.BAD_SYMBOL, f"a symbol is a string, not {_seen(symbol)}")
    try:
        encode_symbol(symbol)
    except RecordError as error:
        raise BadMessage(Code.BAD_SYMBOL, str(error)[:300]) from None


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def _seen(value: object) -> str:
    text = "nothing" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
