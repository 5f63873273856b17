"""Every message of the feed, as it stands on the wire. The AsyncAPI document is made from these types.

Evolution: new messages and new fields come without notice, and clients ignore what they do not know; nothing is
renamed, removed or given another type without another SCHEMA_VERSION (``tests/exporters/test_feed_asyncapi.py``).
Numbers in ``_ns`` are ns since 1970 UTC, integers above 2**53: a reader with doubles sees them to 256 ns.
"""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

SCHEMA_VERSION: Final = 1

MessageId = int | str | None
ChannelName = Literal["prediction", "tick", "bar.1s", "bar.1m", "model", "status", "halt"]
ModeName = Literal["latest", "full", "throttle"]

_Id = Annotated[MessageId, Field(description="echoed in the answer")]
_Symbols = Annotated[
    list[str], Field(description='names, prefixes such as "BTC*", or "*" for all', min_length=1, max_length=2000)
]
_Seq = Annotated[int, Field(description="ascending for each channel and symbol; the same on every gateway")]
_Prev = Annotated[int, Field(description="seq of the message before of this channel and symbol; 0: not known")]
_Skipped = Annotated[int, Field(description="messages left out since the last one of this symbol")]
_Epoch = Annotated[str | None, Field(description="while it is the same, a seq means the same message")]
_SendNs = Annotated[int, Field(description="when the gateway made this message")]


class ResumeFrom(TypedDict):
    """Where a client was before its connection broke."""

    epoch: str
    seqs: Annotated[dict[str, int], Field(description="the last seq that came, by symbol")]


# ---- what clients say ----------------------------------------------------------------------------------------


class SubscribeRequest(TypedDict):
    """Follow symbols; for one that is followed already the new mode takes the place of the old."""

    op: Literal["subscribe"]
    id: NotRequired[_Id]
    channel: NotRequired[ChannelName]
    symbols: _Symbols
    mode: NotRequired[ModeName]
    throttle_ms: NotRequired[Annotated[int, Field(description="of mode throttle", ge=10, le=60_000)]]
    resume: NotRequired[ResumeFrom]
    replay_from_ns: NotRequired[Annotated[int, Field(description="first send all since then", ge=0)]]


class UnsubscribeRequest(TypedDict):
    """Stop following what was subscribed to by these names."""

    op: Literal["unsubscribe"]
    id: NotRequired[_Id]
    channel: NotRequired[ChannelName]
    symbols: _Symbols


class ListRequest(TypedDict):
    """Tell what is followed."""

    op: Literal["list"]
    id: NotRequired[_Id]


class PingRequest(TypedDict):
    """Tell the time."""

    op: Literal["ping"]
    id: NotRequired[_Id]


class AuthRequest(TypedDict):
    """Show a token: first of all where the header Authorization did not, and later a newer one."""

    op: Literal["auth"]
    id: NotRequired[_Id]
    token: str


# ---- what the gateway says -----------------------------------------------------------------------------------


class Limits(TypedDict):
    """What one client may do."""

    inbound_bytes: Annotated[int, Field(description="of one message")]
    inbound_per_s: int
    named_symbols: Annotated[int, Field(description="of one channel")]
    prefixes: Annotated[int, Field(description="of one channel")]
    queue_items: Annotated[int, Field(description="messages held for a slow client of mode full")]
    first_step_within_ms: Annotated[int, Field(description="to authenticate, and then to subscribe")]


class Hello(TypedDict):
    """The first message, or the first after `Authenticated`."""

    type: Literal["hello"]
    schema_version: int
    epoch: _Epoch
    server_ns: int
    channels: list[str]
    heartbeat_ms: int
    limits: Limits
    expires_ns: Annotated[int | None, Field(description="when the token does")]


class AuthRequired(TypedDict):
    """There was no token in the header: send one."""

    type: Literal["auth_required"]
    message: str
    within_ms: int


class Authenticated(TypedDict):
    """The token is good."""

    type: Literal["authenticated"]
    id: MessageId
    expires_ns: int | None


class AuthExpiring(TypedDict):
    """The token expires soon: send a newer one, or the connection is closed with 4401 then."""

    type: Literal["auth_expiring"]
    expires_ns: int
    within_ms: int


class Subscribed(TypedDict):
    """It is followed from here on."""

    type: Literal["subscribed"]
    id: MessageId
    channel: str
    symbols: list[str]
    mode: ModeName
    throttle_ms: int | None
    not_seen: Annotated[list[str], Field(description="names that this gateway has not met yet")]


class Unsubscribed(TypedDict):
    """It is followed no more."""

    type: Literal["unsubscribed"]
    id: MessageId
    channel: str
    symbols: list[str]


class Followed(TypedDict):
    """How a name is followed."""

    mode: ModeName
    throttle_ms: int | None


class SubscriptionList(TypedDict):
    """All that is followed: by channel, by name."""

    type: Literal["subscriptions"]
    id: MessageId
    channels: dict[str, dict[str, Followed]]


class Pong(TypedDict):
    """The answer to a ping."""

    type: Literal["pong"]
    id: MessageId
    server_ns: int


class Error(TypedDict):
    """A request that was not understood, or not granted; it changed nothing."""

    type: Literal["error"]
    code: str
    message: str
    id: MessageId


class Warn(TypedDict):
    """Half of the queue is full."""

    type: Literal["warning"]
    code: Literal["slow"]
    message: str
    id: MessageId


class EpochMessage(TypedDict):
    """Another Kafka numbers a channel from here on: forget what came; a snapshot follows."""

    type: Literal["epoch"]
    channel: str
    epoch: _Epoch
    server_ns: int


class Resumed(TypedDict):
    """What was missed has been sent; it goes on live."""

    type: Literal["resumed"]
    id: MessageId
    channel: str
    seqs: Annotated[dict[str, int], Field(description="the last that was sent, by symbol")]


class Reset(TypedDict):
    """What was missed cannot be had; a snapshot of these symbols follows, and then it goes on live."""

    type: Literal["reset"]
    id: MessageId
    channel: str
    symbols: list[str]
    reason: Annotated[
        Literal["epoch", "gone", "ahead", "restarted"],
        Field(description="another epoch; no longer held; newer than what we have; numbered anew since"),
    ]


class ReplayCompleted(TypedDict):
    """All since the time asked for has been sent; it goes on live."""

    type: Literal["replay_completed"]
    id: MessageId
    channel: str
    symbols: list[str]


class Heartbeat(TypedDict):
    """Each second: the last seq of what is followed, and figures of the gateway (see /health)."""

    type: Literal["heartbeat"]
    server_ns: int
    epoch: _Epoch
    seqs: Annotated[dict[str, int], Field(description="of the channel prediction, up to 1,000 symbols")]
    channels: Annotated[dict[str, dict[str, int]], Field(description="the same of the other channels")]
    problems: dict[str, str]


class GoingAway(TypedDict):
    """The gateway stops: go to another."""

    type: Literal["going_away"]
    deadline_ms: int
    deadline_ns: int


# ---- data: items in lists, one list a message ----------------------------------------------------------------


class Prediction(TypedDict):
    """What the model says after a tick. Its seq counts from 1 without a gap."""

    symbol: str
    seq: _Seq
    event_ns: Annotated[int, Field(description="of the tick, at the venue")]
    ref_price: Annotated[float, Field(description="what the expected return refers to")]
    horizon_ns: int
    p_down: float
    p_flat: float
    p_up: float
    expected_return_bps: float
    model: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    warming: Annotated[bool, Field(description="fewer ticks seen than the model needs to warm up")]
    recv_ns: Annotated[int, Field(description="a source received the tick")]
    consumed_ns: Annotated[int, Field(description="a lane took it")]
    features_ns: Annotated[int, Field(description="its features were computed")]
    inferred_ns: Annotated[int, Field(description="the model had run")]
    published_ns: Annotated[int, Field(description="the prediction was sent to Kafka")]
    skipped: NotRequired[_Skipped]


class Tick(TypedDict):
    """A tick as its source sent it, before the engine judged it. Null: not told."""

    symbol: str
    seq: _Seq
    prev: _Prev
    kind: Literal["trade", "quote", "halt", "resume", "unknown"]
    event_ns: int
    recv_ns: int
    source_seq: int
    price: float | None
    size: float | None
    side: Annotated[int, Field(description="aggressor: 1 buyer, -1 seller, 0 not known")]
    bid: float | None
    ask: float | None
    bid_size: float | None
    ask_size: float | None
    skipped: NotRequired[_Skipped]


class Bar(TypedDict):
    """A bar of the reference prices of a symbol; final, and sent when the first prediction after its end is."""

    symbol: str
    seq: Annotated[int, Field(description="start_ns / length")]
    prev: _Prev
    start_ns: int
    end_ns: int
    open: float
    high: float
    low: float
    close: float
    ticks: Annotated[int, Field(description="accepted ticks, each with its prediction")]
    last_seq: Annotated[int, Field(description="of the last of these predictions")]
    published_ns: Annotated[int, Field(description="of the prediction that ended the bar")]
    skipped: NotRequired[_Skipped]


class Event(TypedDict):
    """Something about a symbol, or about a model: see docs/feed.md."""

    symbol: str
    seq: _Seq
    prev: _Prev
    at_ns: Annotated[int, Field(description="when it happened, or was found out")]
    event: str
    details: dict[str, Any]
    skipped: NotRequired[_Skipped]


class Snapshot(TypedDict):
    """The newest of each symbol: what was known of these symbols counts no more. One of the lists is there."""

    type: Literal["snapshot"]
    channel: ChannelName
    epoch: _Epoch
    send_ns: _SendNs
    predictions: NotRequired[list[Prediction]]
    ticks: NotRequired[list[Tick]]
    bars: NotRequired[list[Bar]]
    events: NotRequired[list[Event]]


class PredictionMessage(TypedDict):
    """Predictions, in order."""

    type: Literal["prediction"]
    epoch: _Epoch
    send_ns: _SendNs
    predictions: list[Prediction]


class TickMessage(TypedDict):
    """Ticks, in order."""

    type: Literal["tick"]
    epoch: _Epoch
    send_ns: _SendNs
    ticks: list[Tick]


class BarMessage(TypedDict):
    """Bars, in order."""

    type: Literal["bar.1s", "bar.1m"]
    epoch: _Epoch
    send_ns: _SendNs
    bars: list[Bar]


class EventMessage(TypedDict):
    """Events, in order."""

    type: Literal["model", "status", "halt"]
    epoch: _Epoch
    send_ns: _SendNs
    events: list[Event]


Request = SubscribeRequest | UnsubscribeRequest | ListRequest | PingRequest | AuthRequest
Said = (
    Hello
    | AuthRequired
    | Authenticated
    | AuthExpiring
    | Subscribed
    | Unsubscribed
    | SubscriptionList
    | Pong
    | Error
    | Warn
    | EpochMessage
    | Resumed
    | Reset
    | ReplayCompleted
    | Heartbeat
    | GoingAway
)
Data = Snapshot | PredictionMessage | TickMessage | BarMessage | EventMessage
