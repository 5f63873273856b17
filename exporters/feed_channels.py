"""The channels: what a row of each is, how it is made into JSON, and where its messages are numbered. Pure.

Every row has ``symbol`` and ``seq``. A prediction's seq counts without a gap; the rows of the others have ``prev``,
the seq of the one before of the same symbol, because theirs is a position (in Kafka, or in time) and leaves numbers
out. Both are the same on every gateway.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from agents.features import COUNT
from exporters.feed_encode import encode_bars, encode_events, encode_features, encode_predictions, encode_ticks
from stream.clock import NS_PER_S
from stream.records import FEATURES_HEAD, PREDICTION, SYMBOL_BYTES, TICK, Records, features_record

_CHAINED: Final[list[tuple[str, str]]] = [("symbol", f"S{SYMBOL_BYTES}"), ("seq", "<u8"), ("prev", "<u8")]

# A tick with its place: seq is the offset of its block in `ticks` times 4096, plus its index there, plus 1.
FEED_TICK: Final = np.dtype([*_CHAINED, *(field for field in TICK.descr if field[0] != "symbol")])

BAR: Final = np.dtype(
    [
        *_CHAINED,
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("ticks", "<i8"),
        ("last_seq", "<u8"),
        ("published_ns", "<i8"),
    ]
)

# Its seq is that of the prediction. The values are called as the message `feature_names` says.
FEED_FEATURES: Final = np.dtype(
    [
        *_CHAINED,
        *(field for field in FEATURES_HEAD.descr if field[0] not in ("symbol", "seq")),
        features_record(COUNT).descr[-1],
    ]
)

# Only ever JSON: what happens is told in words, and seldom.
EVENT: Final = np.dtype([*_CHAINED, ("at_ns", "<i8"), ("event", object), ("details", object)])


@dataclass(frozen=True)
class Channel:
    """A channel."""

    name: str
    plural: Literal["predictions", "ticks", "bars", "events", "features"]  # what the list in its messages is called
    number: int  # in the header of binary messages: append only
    dtype: np.dtype[np.void]
    encode: Callable[[Records, Sequence[bytes]], list[bytes]]
    time_field: str  # what `replay_from_ns` is compared with
    record_version: int = 1  # of binary records: 2 since predictions have `spread_bps`
    weight: int = 1  # so many rows of others are as long as one: there are as many fewer in memory and in a message

    @property
    def chained(self) -> bool:
        """Whether rows tell the seq before them, because seqs leave numbers out."""
        return "prev" in (self.dtype.names or ())

    def cells(self, rows: Records) -> Records:
        """Return a view of rows that is copied much more quickly: bytes, where rows are no more than that."""
        return rows if self.dtype.hasobject else rows.view(self._cell)

    @cached_property
    def _cell(self) -> np.dtype[np.void]:
        return np.dtype((np.void, self.dtype.itemsize))

    @property
    def has_binary(self) -> bool:
        """Whether rows go as records to clients that asked for them."""
        return not self.dtype.hasobject


CHANNELS: Final[Mapping[str, Channel]] = {
    channel.name: channel
    for channel in (
        Channel("prediction", "predictions", 1, PREDICTION, encode_predictions, "published_ns", record_version=2),
        Channel("tick", "ticks", 2, FEED_TICK, encode_ticks, "recv_ns"),
        Channel("bar.1s", "bars", 3, BAR, encode_bars, "published_ns"),
        Channel("bar.1m", "bars", 4, BAR, encode_bars, "published_ns"),
        Channel("model", "events", 5, EVENT, encode_events, "at_ns"),
        Channel("status", "events", 6, EVENT, encode_events, "at_ns"),
        Channel("halt", "events", 7, EVENT, encode_events, "at_ns"),
        Channel("features", "features", 8, FEED_FEATURES, encode_features, "published_ns", weight=8),
    )
}
BAR_NS: Final = {"bar.1s": NS_PER_S, "bar.1m": 60 * NS_PER_S}
