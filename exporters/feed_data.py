"""What the channels carry, as it stands on the wire: items, in messages of one list each.

The rules of evolution are those of `exporters.feed_messages`.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from exporters.feed_messages import ChannelName, Epoch

_Seq = Annotated[int, Field(description="ascending for each channel and symbol; the same on every gateway")]
_Prev = Annotated[int, Field(description="seq of the message before of this channel and symbol; 0: not known")]
_Skipped = Annotated[int, Field(description="messages left out since the last one of this symbol")]
_SendNs = Annotated[int, Field(description="when the gateway made this message")]


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
    spread_bps: Annotated[float | None, Field(description="of the mid, when it was predicted; null: not known")]
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


class FeatureRow(TypedDict):
    """What the model saw when it made the prediction of the same symbol and seq."""

    symbol: str
    seq: _Seq
    prev: _Prev
    event_ns: Annotated[int, Field(description="of the tick, at the venue")]
    ref_price: float
    feature_hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="of the values, as records have them")]
    published_ns: Annotated[int, Field(description="the row was sent to Kafka, with its prediction")]
    names_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="of the message `feature_names`")]
    values: Annotated[dict[str, float], Field(description="by name, in their order")]
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
    epoch: Epoch
    send_ns: _SendNs
    predictions: NotRequired[list[Prediction]]
    ticks: NotRequired[list[Tick]]
    bars: NotRequired[list[Bar]]
    events: NotRequired[list[Event]]
    features: NotRequired[list[FeatureRow]]


class PredictionMessage(TypedDict):
    """Predictions, in order."""

    type: Literal["prediction"]
    epoch: Epoch
    send_ns: _SendNs
    predictions: list[Prediction]


class TickMessage(TypedDict):
    """Ticks, in order."""

    type: Literal["tick"]
    epoch: Epoch
    send_ns: _SendNs
    ticks: list[Tick]


class BarMessage(TypedDict):
    """Bars, in order."""

    type: Literal["bar.1s", "bar.1m"]
    epoch: Epoch
    send_ns: _SendNs
    bars: list[Bar]


class FeaturesMessage(TypedDict):
    """Rows of features, in order."""

    type: Literal["features"]
    epoch: Epoch
    send_ns: _SendNs
    features: list[FeatureRow]


class EventMessage(TypedDict):
    """Events, in order."""

    type: Literal["model", "status", "halt"]
    epoch: Epoch
    send_ns: _SendNs
    events: list[Event]


Data = Snapshot | PredictionMessage | TickMessage | BarMessage | EventMessage | FeaturesMessage
