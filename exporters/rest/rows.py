"""The rows of the API's tables: names, types, units and examples, as in its description and in ClickHouse's views.

The columns that are asked for are those named here, in this order, so that a view which grows does not change an
answer. Times are text in ISO 8601 with nanoseconds, in UTC.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Hex64 = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Probability = Annotated[float, Field(ge=0, le=1)]
Symbol = Annotated[str, Field(min_length=1, max_length=24)]


class Row(BaseModel):
    """A row; its fields are columns of a view."""

    model_config = ConfigDict(extra="forbid")


class PredictionRow(Row):
    """A prediction, with a time stamp for each stage that it went through."""

    symbol: Symbol
    seq: int = Field(description="counts the symbol's predictions, without a gap")
    event_time: Time = Field(description="when the tick happened, by the venue's clock")
    ref_price: float = Field(description="the price that the prediction starts from")
    horizon_ns: int = Field(description="how far ahead it looks, ns")
    p_down: Probability
    p_flat: Probability
    p_up: Probability
    expected_return_bps: float
    spread_bps: float | None = Field(description="of the mid, when it was predicted; null where not known")
    model: Hex64
    feature_hash_hex: Hex64
    warming: bool = Field(description="the model has not seen enough of this symbol yet")
    source_partition: int
    source_offset: int = Field(description="offset of the tick's block in the topic `ticks`")
    source_index: int = Field(description="the tick's place in its block")
    recv_time: Time = Field(description="when the source had the tick")
    consumed_time: Time
    features_time: Time
    inferred_time: Time
    published_time: Time
    epoch: str = Field(description="the life of the Kafka cluster within which seq counts")


class LatestRow(Row):
    """The newest prediction of a symbol."""

    symbol: Symbol
    seq: int = Field(description="counts the symbol's predictions, without a gap")
    event_time: Time = Field(description="when the tick happened, by the venue's clock")
    published_time: Time = Field(description="when the prediction was published; now minus this is its age")
    ref_price: float = Field(description="the price that the prediction starts from")
    horizon_ns: int = Field(description="how far ahead it looks, ns")
    p_down: Probability
    p_flat: Probability
    p_up: Probability
    expected_return_bps: float
    model: Hex64
    warming: bool = Field(description="the model has not seen enough of this symbol yet")
    source_partition: int
    source_offset: int
    source_index: int
    epoch: str


class TickRow(Row):
    """A tick as it came in. What a tick of its kind does not have is null."""

    symbol: Symbol
    event_time: Time = Field(description="when it happened, by the venue's clock")
    recv_time: Time = Field(description="when the source had it")
    source_seq: int = Field(description="the source's number of it: rises within symbol and stream")
    kind: Literal["unknown", "trade", "quote", "halt", "resume"]
    price: float | None
    size: float | None
    bid: float | None
    ask: float | None
    bid_size: float | None
    ask_size: float | None
    side: int = Field(description="of a trade: 1 somebody bought, -1 somebody sold, 0 not known")
    source_partition: int
    source_offset: int
    source_index: int
    epoch: str


class RejectedRow(TickRow):
    """A tick that was not believed, and why."""

    reason: str


class BarRow(Row):
    """Open, high, low and close of an interval in which the symbol ticked, by event time."""

    symbol: Symbol
    bar_time: Time = Field(description="when the bar begins")
    open: float
    high: float
    low: float
    close: float
    volume: float = Field(description="size of its trades")
    notional: float = Field(description="price times size of its trades")
    ticks: int
    trades: int
    vwap: float | None = Field(description="null where nothing was traded")


class FeatureRow(Row):
    """What the model saw: besides these, a number for each feature that `tickloom features` lists, by its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    symbol: Symbol
    event_time: Time = Field(description="of the tick, by the venue's clock")
    seq: int = Field(description="of the prediction that was made of it")
    ref_price: float
    feature_hash_hex: Hex64 = Field(description="as in the prediction")
    names_id_hex: Hex64 = Field(description="says which features there were then, in which order")
    source_partition: int
    source_offset: int
    source_index: int
    published_time: Time
    epoch: str


class OutcomeRow(Row):
    """What came of a prediction."""

    symbol: Symbol
    model: Hex64
    seq: int
    event_time: Time = Field(description="of the prediction")
    from_time: Time
    resolved_time: Time
    horizon_ns: int
    ref_price: float
    later_price: float
    return_bps: float | None
    expected_return_bps: float | None
    p_down: Probability | None
    p_flat: Probability | None
    p_up: Probability | None
    realised_class: Literal["down", "flat", "up"]
    log_loss: float | None
    brier: float | None
    fallback_log_loss: float | None = Field(description="of the fallback on the same tick; null where not known")
    cost_bps: float | None = Field(description="of a position: half of the spread at each end, and fees")
    shadow: bool = Field(description="the model was not in service")
    warming: bool
    source_partition: int
    epoch: str


class ModelEventRow(Row):
    """Something that happened to a model."""

    at_time: Time
    event_time: Time
    kind: Literal["served", "tripped", "rolled back", "rollback failed", "drifted"]
    model: Hex64
    other: Hex64
    value: float | None
    predictions: int
    detail: str
    epoch: str


class ModelScoreRow(Row):
    """How good a model was on a symbol in an hour. A rate of what the hour did not have is null."""

    model: Hex64
    shadow: bool
    symbol: Symbol
    hour: Time
    outcomes: int
    moved: int = Field(description="outcomes outside of the dead band")
    hit_rate: float | None = Field(description="how often the likelier side was right, of those that moved")
    log_loss: float | None
    brier: float | None
    ic: float | None = Field(description="correlation of the expected with the realised return")
    positions: int
    net_bps: float | None = Field(description="mean profit of a position, net of costs")
    fallback_outcomes: int
    fallback_hit_rate: float | None
    fallback_log_loss: float | None
    log_loss_beside_fallback: float | None


class StageLatencyRow(Row):
    """How long a stage took in a minute."""

    minute: Time
    stage: str
    predictions: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


_TIME: Final = "2026-11-25T09:30:00.123456789Z"
_PREDICTION: Final[dict[str, Any]] = {
    "symbol": "SIM.ALPHA",
    "seq": 877,
    "event_time": _TIME,
    "ref_price": 20.795,
    "horizon_ns": 10_000_000_000,
    "p_down": 0.3395578,
    "p_flat": 0.26762906,
    "p_up": 0.39281315,
    "expected_return_bps": 0.010020733,
    "spread_bps": 4.81,
    "model": "718e0a2ddc1319ff",
    "feature_hash_hex": "9a1bd0c35b7f2e04",
    "warming": False,
    "source_partition": 2,
    "source_offset": 4711,
    "source_index": 0,
    "recv_time": _TIME,
    "consumed_time": _TIME,
    "features_time": _TIME,
    "inferred_time": _TIME,
    "published_time": _TIME,
    "epoch": "5f2b9c",
}
_LATEST: Final = {name: value for name, value in _PREDICTION.items() if name in LatestRow.model_fields}
_TICK: Final[dict[str, Any]] = {
    "symbol": "SIM.ALPHA",
    "event_time": _TIME,
    "recv_time": _TIME,
    "source_seq": 12345,
    "kind": "quote",
    "price": None,
    "size": None,
    "bid": 20.79,
    "ask": 20.80,
    "bid_size": 300.0,
    "ask_size": 500.0,
    "side": 0,
    "source_partition": 2,
    "source_offset": 4711,
    "source_index": 0,
    "epoch": "5f2b9c",
}
EXAMPLES: Final[dict[type[Row], dict[str, Any]]] = {
    PredictionRow: _PREDICTION,
    LatestRow: _LATEST,
    TickRow: _TICK,
    RejectedRow: {**_TICK, "bid": 20.81, "reason": "crossed"},
    BarRow: {
        "symbol": "SIM.ALPHA",
        "bar_time": "2026-11-25T09:30:00.000000000Z",
        "open": 20.79,
        "high": 20.81,
        "low": 20.785,
        "close": 20.80,
        "volume": 1200.0,
        "notional": 24954.0,
        "ticks": 118,
        "trades": 12,
        "vwap": 20.795,
    },
    FeatureRow: {
        **{name: value for name, value in _PREDICTION.items() if name in FeatureRow.model_fields},
        "names_id_hex": "41c1f0b7a0d5c3e2",
        "rsi_14": 54.2,
        "spread_bps": 4.8,
    },
    OutcomeRow: {
        "symbol": "SIM.ALPHA",
        "model": "718e0a2ddc1319ff",
        "seq": 877,
        "event_time": _TIME,
        "from_time": _TIME,
        "resolved_time": "2026-11-25T09:30:10.200000000Z",
        "horizon_ns": 10_000_000_000,
        "ref_price": 20.795,
        "later_price": 20.80,
        "return_bps": 2.4,
        "expected_return_bps": 0.01,
        "p_down": 0.34,
        "p_flat": 0.27,
        "p_up": 0.39,
        "realised_class": "up",
        "log_loss": 0.94,
        "brier": 0.56,
        "fallback_log_loss": 1.05,
        "cost_bps": 1.0,
        "shadow": False,
        "warming": False,
        "source_partition": 2,
        "epoch": "5f2b9c",
    },
    ModelEventRow: {
        "at_time": _TIME,
        "event_time": _TIME,
        "kind": "served",
        "model": "718e0a2ddc1319ff",
        "other": "0000000000000000",
        "value": 0.0,
        "predictions": 0,
        "detail": "",
        "epoch": "5f2b9c",
    },
    ModelScoreRow: {
        "model": "718e0a2ddc1319ff",
        "shadow": False,
        "symbol": "SIM.ALPHA",
        "hour": "2026-11-25T09:00:00.000000000Z",
        "outcomes": 5000,
        "moved": 3700,
        "hit_rate": 0.53,
        "log_loss": 1.02,
        "brier": 0.61,
        "ic": 0.08,
        "positions": 3100,
        "net_bps": -0.4,
        "fallback_outcomes": 5000,
        "fallback_hit_rate": 0.5,
        "fallback_log_loss": 1.06,
        "log_loss_beside_fallback": 1.02,
    },
    StageLatencyRow: {
        "minute": "2026-11-25T09:30:00.000000000Z",
        "stage": "inference",
        "predictions": 30000,
        "p50_us": 4.0,
        "p90_us": 11.0,
        "p99_us": 60.0,
        "p999_us": 210.0,
        "max_us": 900.0,
    },
}
