"""The rules of the feed that are numbers and codes: limits, modes, errors, closes. Pure: no I/O.

    client                                                                   gateway
    {"op":"subscribe","id":1,"channel":"prediction","symbols":["AIG"],"mode":"full"}  ─▶
                                            ◀─ {"type":"subscribed","id":1,...}, {"type":"snapshot",...}, ...
    {"op":"unsubscribe","id":2,"channel":"prediction","symbols":["AIG"]}  ─▶ ◀─ {"type":"unsubscribed","id":2,...}
    {"op":"list","id":3}  ─▶                                                 ◀─ {"type":"subscriptions","id":3,...}
    {"op":"ping","id":4}  ─▶                                                 ◀─ {"type":"pong","id":4,...}
    {"op":"auth","id":5,"token":"..."}  ─▶                                   ◀─ {"type":"authenticated","id":5}

A message that cannot be understood is answered with ``{"type":"error","code","message","id"}`` and changes nothing.
`exporters.feed_messages` has every message, `exporters.feed_requests` reads those of clients; see docs/feed.md.
"""

from enum import IntEnum, StrEnum
from typing import Final

from exporters.feed_messages import Error, MessageId

EVERYTHING: Final = "*"
JSON_PROTOCOL: Final = "tickloom.json.v1"
BINARY_PROTOCOL: Final = "tickloom.binary.v1"

# A request to follow 2,000 symbols by name has about 16 KiB; the rest is room.
MAX_INBOUND_BYTES: Final = 64 << 10
# A client asks a few times when it connects and hardly ever after; more than this is a loop gone wild.
MAX_INBOUND_PER_S: Final = 20
# Whoever wants more than this wants all of them, with "*". Both are for each channel of a client.
MAX_NAMED_SYMBOLS: Final = 2000
MAX_PREFIXES: Final = 32
# Sockets of a gateway that are no clients yet; a handshake that is not done in 10 s is given up.
MAX_HANDSHAKES: Final = 128
# Below the first a throttle is what `latest` is anyway; above the second, who knows what a client waits for.
MIN_THROTTLE_MS: Final = 10
MAX_THROTTLE_MS: Final = 60_000


class Close(IntEnum):
    """Why we closed. 4xxx are ours; the last two digits follow HTTP where it has a like thing."""

    GOING_AWAY = 1001
    INTERNAL = 1011
    SLOW = 4008
    TOO_MANY_MESSAGES = 4029
    UNAUTHORISED = 4401
    FORBIDDEN = 4403
    NO_SUBSCRIPTION = 4408


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
    FORBIDDEN = "forbidden"
    TOO_MANY_CATCH_UPS = "too_many_catch_ups"


class Mode(IntEnum):
    """How a symbol is followed."""

    NONE = 0
    LATEST = 1  # the newest as soon as the client can take it; what came between is skipped and counted
    FULL = 2  # every one, in order; a client that cannot keep up is closed
    THROTTLE = 3  # as `latest`, at most one in so many ms


class BadMessage(Exception):
    """A client's message that is answered with an error."""

    def __init__(self, code: Code, message: str, message_id: MessageId = None) -> None:
        super().__init__(message)
        self.code = code
        self.message_id = message_id

    def reply(self) -> Error:
        """Return the answer to the client."""
        return {"type": "error", "code": self.code.value, "message": str(self), "id": self.message_id}


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
