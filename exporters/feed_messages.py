"""Every message of the feed, as it stands on the wire. The AsyncAPI document is made from these types.

Evolution: new messages and new fields come without notice, and clients ignore what they do not know; nothing is
renamed, removed or given another type without another SCHEMA_VERSION (``tests/exporters/test_feed_asyncapi.py``).
Numbers in ``_ns`` are ns since 1970 UTC, integers above 2**53: a reader with doubles sees them to 256 ns.
"""

from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

SCHEMA_VERSION: Final = 1

MessageId = int | str | None
ChannelName = Literal["prediction", "tick", "bar.1s", "bar.1m", "model", "status", "halt", "features"]
ModeName = Literal["latest", "full", "throttle"]

_Id = Annotated[MessageId, Field(description="echoed in the answer")]
_Symbols = Annotated[
    list[str], Field(description='names, prefixes such as "BTC*", or "*" for all', min_length=1, max_length=2000)
]
Epoch = Annotated[str | None, Field(description="while it is the same, a seq means the same message")]


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
    epoch: Epoch
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
    epoch: Epoch
    server_ns: int


class FeatureName(TypedDict):
    """A feature."""

    name: str
    unit: str
    formula: str


class FeatureNames(TypedDict):
    """What the values of rows with this `names_id` are, in their order. Comes before the first of them."""

    type: Literal["feature_names"]
    channel: Literal["features"]
    names_id: str
    features: list[FeatureName]


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
    epoch: Epoch
    seqs: Annotated[dict[str, int], Field(description="of the channel prediction, up to 1,000 symbols")]
    channels: Annotated[dict[str, dict[str, int]], Field(description="the same of the other channels")]
    received: Annotated[int, Field(description="predictions that the gateway has read")]
    problems: dict[str, str]


class GoingAway(TypedDict):
    """The gateway stops: go to another."""

    type: Literal["going_away"]
    deadline_ms: int
    deadline_ns: int


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
    | FeatureNames
    | Resumed
    | Reset
    | ReplayCompleted
    | Heartbeat
    | GoingAway
)
