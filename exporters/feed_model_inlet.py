"""What happens to models, from three topics, for the channel ``model``.

Each stands under a name in place of a symbol, and all of a name come from one topic, so that their order is that of
its offsets: champion, challenger, swap, worker (of ``models``, by the first part of the key), scores/MODEL (of
``model.scores``) and events (of ``model.events``).
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from exporters.feed_channels import EVENT
from exporters.feed_history import Segment
from exporters.feed_hub import Hub
from exporters.feed_inlets import give
from exporters.intake import readable_symbols
from stream.errors import RecordError
from stream.records import MAX_BLOCK_RECORDS, MODEL_EVENT, SYMBOL_BYTES, ModelEventKind, Records, decode_block
from stream.topics import MODEL_EVENTS, MODEL_SCORES, MODELS

logger = logging.getLogger(__name__)

MODEL_TOPICS: Final = (MODELS, MODEL_SCORES, MODEL_EVENTS)
_KINDS: Final = {kind.value: kind.name.lower() for kind in ModelEventKind}

_Found = list[tuple[bytes, str, dict[str, Any], int]]  # name, event, details, at_ns


class ModelInlet:
    """`MODEL_TOPICS`."""

    def __init__(self, hub: Hub) -> None:
        """Feed the channel model of ``hub``."""
        self._main = hub.channels["model"]
        self.fanouts = (self._main,)

    def forget(self) -> None:
        """Nothing is kept."""

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return ``EVENT[N]``."""
        parts = [np.zeros(0, EVENT)]
        for message in messages:
            try:
                found = _events(message) if topic == MODEL_EVENTS else _json(topic, message)
            except (RecordError, ValueError) as error:
                logger.warning("message %d of %s is left out: %s", message.offset, topic, error)
                continue
            rows = np.zeros(len(found), EVENT)
            for index, (name, event, details, at_ns) in enumerate(found):
                rows[index]["symbol"] = name[:SYMBOL_BYTES]
                rows[index]["seq"] = message.offset * MAX_BLOCK_RECORDS + index + 1
                rows[index]["at_ns"], rows[index]["event"] = at_ns, orjson.dumps(event)
                rows[index]["details"] = orjson.dumps(details)
            parts.append(rows[readable_symbols(rows["symbol"])])
        return np.concatenate(parts)

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give them to the channel."""
        give(self._main, rows, segments, is_past)


def _json(topic: str, message: Any) -> _Found:
    key = (message.key or b"").decode("ascii", "replace")
    kind = "scores" if topic == MODEL_SCORES else key.partition("/")[0]
    name = f"scores/{key}" if topic == MODEL_SCORES else kind
    # No value: compaction is to forget the key, as of a challenger that is none any more.
    details = {"removed": True} if message.value is None else orjson.loads(message.value)
    if not isinstance(details, dict):
        raise ValueError("it is JSON, and no object")
    return [(name.encode(), kind, {"key": key, **details}, message.timestamp * 1_000_000)]


def _events(message: Any) -> _Found:
    rows = decode_block(message.value or b"", MODEL_EVENT)
    return [
        (
            b"events",
            _KINDS.get(int(row["kind"]), str(row["kind"])),
            {
                "model": f"{row['model_id']:016x}",
                "other": f"{row['other_id']:016x}",
                "value": float(row["value"]),
                "predictions": int(row["predictions"]),
                "event_ns": int(row["event_ns"]),
                "detail": row["detail"].decode("ascii", "replace"),
            },
            int(row["at_ns"]),
        )
        for row in rows
    ]
