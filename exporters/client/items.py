"""What a `Feed` gives, in order: batches of messages, and everything that a careful reader has to know besides."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from exporters.feed_channels import CHANNELS
from exporters.feed_encode import encode_symbol_name
from stream.records import Records


@dataclass(frozen=True, eq=False)
class Batch:
    """Messages of a channel, in order; no message comes twice."""

    channel: str
    # Read-only, N >= 1: PREDICTION[N], FEED_TICK[N], BAR[N], FEED_FEATURES[N], or EVENT[N], of which `event` and
    # `details` are JSON text.
    records: Records
    is_snapshot: bool  # these symbols begin here: what was known of them counts no more
    # uint32[N], how many were left out before each, or None where all come (mode "full"). Exact for predictions; of
    # the other channels it is what the gateway counted, which two gateways together may count twice.
    skipped: NDArray[np.uint32] | None
    epoch: str
    send_ns: int  # when the gateway made the message
    url: str = ""  # of the gateway that was first

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self.records)

    def at(self, places: NDArray[np.intp] | slice) -> "Batch":
        """Return some of the messages, as numpy takes them out of an array."""
        skipped = None if self.skipped is None else self.skipped[places]
        return replace(self, records=self.records[places], skipped=skipped)

    def lines(self) -> list[bytes]:
        """Return each message as JSON, as a client without the binary subprotocol gets it."""
        names = {symbol: encode_symbol_name(symbol) for symbol in set(self.records["symbol"].tolist())}
        texts = CHANNELS[self.channel].encode(
            self.records, [names[symbol] for symbol in self.records["symbol"].tolist()]
        )
        if self.skipped is None:
            return [text + b"}" for text in texts]
        return [b'%b,"skipped":%d}' % pair for pair in zip(texts, self.skipped.tolist(), strict=True)]

    def rows(self) -> list[dict[str, Any]]:
        """Return each message as a dict, with the fields of docs/asyncapi.json."""
        rows: list[dict[str, Any]] = orjson.loads(b"[%b]" % b",".join(self.lines()))
        return rows


@dataclass(frozen=True)
class Gap:
    """Messages of a symbol are missing, and no gateway has them; what comes next follows the hole."""

    channel: str
    symbol: str
    after_seq: int  # the last that came
    before_seq: int  # the next that comes

    @property
    def missing(self) -> int | None:
        """How many are missing; None for a channel whose seqs do not count messages."""
        return None if CHANNELS[self.channel].chained else self.before_seq - self.after_seq - 1


@dataclass(frozen=True)
class Reset:
    """The past of symbols cannot be had: each begins anew with a snapshot, and what was between may be missing."""

    channel: str
    symbols: tuple[str, ...]  # of a replay, as they were asked for
    reason: str  # as in docs/feed.md: epoch, gone, restarted


@dataclass(frozen=True)
class Resumed:
    """What was missed while the connection was away has come; it goes on live."""

    channel: str
    symbols: tuple[str, ...]
    url: str


@dataclass(frozen=True)
class ReplayCompleted:
    """All since the time asked for has come; it goes on live."""

    channel: str
    symbols: tuple[str, ...]  # as they were asked for


@dataclass(frozen=True)
class Connected:
    """There is a connection to a gateway."""

    url: str


@dataclass(frozen=True)
class Disconnected:
    """A connection to a gateway is gone, or none can be made; it is tried again until the feed is closed."""

    url: str
    why: str


@dataclass(frozen=True)
class FeatureNames:
    """What the values of `features` with this ``names_id`` are called, in their order; before the first of them."""

    names_id: int
    names: tuple[str, ...]
    units: tuple[str, ...]
    formulas: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """Where a reader is in a channel: another `Feed`, today or tomorrow, goes on from here."""

    epoch: str
    seqs: Mapping[str, int]  # the last that came, by symbol


Item = Batch | Gap | Reset | Resumed | ReplayCompleted | FeatureNames | Connected | Disconnected


@dataclass
class Stats:
    """What a `Feed` has seen since it was opened."""

    records: int = 0  # given to the reader
    duplicates: int = 0  # dropped: another connection had them first, or a resume repeated them
    gaps: int = 0
    resets: int = 0  # symbols
    connections: int = 0
    resumes: int = 0  # requests to resume
    closes: dict[int, int] = field(default_factory=dict)  # by code; 1006 is a connection that broke off
