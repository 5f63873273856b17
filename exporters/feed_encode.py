"""Rows of each channel as JSON objects, made by columns: about 2 us each, a quarter of ``orjson.dumps`` of a dict.

Every object comes without its closing brace, so that a field can follow. `exporters.feed_data` says what the
fields mean.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from exporters.fields import decimals
from stream.records import FLAG_WARMING, PREDICTION, Records, TickKind

_PREDICTION: Final = (
    b'{"symbol":%b,"seq":%d,"event_ns":%d,"ref_price":%b,"horizon_ns":%d,"p_down":%b,"p_flat":%b,"p_up":%b,'
    b'"expected_return_bps":%b,"spread_bps":%b,"model":"%016x","warming":%b,"recv_ns":%d,"consumed_ns":%d,'
    b'"features_ns":%d,"inferred_ns":%d,"published_ns":%d'
)
_STAMPS: Final = ("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")
_ANSWERS: Final = ("p_down", "p_flat", "p_up", "expected_return_bps")
_FIRST_ANSWER: Final = PREDICTION.fields["p_down"][1] // 4  # type: ignore[index]  # they stand side by side, 4 bytes each
_BOOL: Final = (b"false", b"true")

_TICK: Final = (
    b'{"symbol":%b,"seq":%d,"prev":%d,"kind":"%b","event_ns":%d,"recv_ns":%d,"source_seq":%d,"price":%b,"size":%b,'
    b'"side":%d,"bid":%b,"ask":%b,"bid_size":%b,"ask_size":%b'
)
_KINDS: Final = {kind.value: kind.name.lower().encode() for kind in TickKind}

_BAR: Final = (
    b'{"symbol":%b,"seq":%d,"prev":%d,"start_ns":%d,"end_ns":%d,"open":%b,"high":%b,"low":%b,"close":%b,"ticks":%d,'
    b'"last_seq":%d,"published_ns":%d'
)

_FEATURES: Final = (
    b'{"symbol":%b,"seq":%d,"prev":%d,"event_ns":%d,"ref_price":%b,"feature_hash":"%016x","published_ns":%d,'
    b'"names_id":"%016x","values":'
)
# By names_id, for all of a process: what an id means never changes.
_VALUES: Final[dict[int, tuple[bytes, int]]] = {}  # a template, and how many it takes


def encode_predictions(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``PREDICTION[N]``.

    Args:
        rows: all numbers but ``spread_bps`` are finite; that is null where it is NaN.
        names: the symbol of each row as JSON text, quotes and all.
    """
    words = rows.view("<f4").reshape(len(rows), -1)
    answers = decimals(words[:, _FIRST_ANSWER : _FIRST_ANSWER + len(_ANSWERS)].reshape(-1))
    columns = [
        names,
        *_integers(rows, "seq", "event_ns"),
        decimals(rows["ref_price"]),
        *_integers(rows, "horizon_ns"),
        *(answers[place :: len(_ANSWERS)] for place in range(len(_ANSWERS))),
        decimals(rows["spread_bps"]),
        *_integers(rows, "model_id"),
        [_BOOL[flag] for flag in (rows["flags"] & FLAG_WARMING).tolist()],
        *_integers(rows, *_STAMPS),
    ]
    return [_PREDICTION % values for values in zip(*columns, strict=True)]


def encode_ticks(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``FEED_TICK[N]``; what is NaN or infinite is null."""
    columns = [
        names,
        *_integers(rows, "seq", "prev"),
        [_KINDS.get(kind, b"unknown") for kind in rows["kind"].tolist()],
        *_integers(rows, "event_ns", "recv_ns", "source_seq"),
        *(decimals(rows[name]) for name in ("price", "size")),
        *_integers(rows, "side"),
        *(decimals(rows[name]) for name in ("bid", "ask", "bid_size", "ask_size")),
    ]
    return [_TICK % values for values in zip(*columns, strict=True)]


def encode_bars(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``BAR[N]``."""
    columns = [
        names,
        *_integers(rows, "seq", "prev", "start_ns", "end_ns"),
        *(decimals(rows[name]) for name in ("open", "high", "low", "close")),
        *_integers(rows, "ticks", "last_seq", "published_ns"),
    ]
    return [_BAR % values for values in zip(*columns, strict=True)]


def encode_events(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``EVENT[N]``; ``event`` and ``details`` are JSON text."""
    columns = [names, *_integers(rows, "seq", "prev", "at_ns"), rows["event"].tolist(), rows["details"].tolist()]
    template = b'{"symbol":%b,"seq":%d,"prev":%d,"at_ns":%d,"event":%b,"details":%b'
    return [template % values for values in zip(*columns, strict=True)]


def name_features(names_id: int, names: Sequence[str]) -> None:
    """Say what the values of rows with this ``names_id`` are called; `encode_features` has to know."""
    template = b"{%b}" % b",".join(orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in names)
    _VALUES[names_id] = template, len(names)


def encode_features(rows: Records, names: Sequence[bytes]) -> list[bytes]:
    """Return each of ``FEED_FEATURES[N]``, values by name.

    Raises:
        KeyError: nobody has said what the values are called.
    """
    heads = [
        names,
        *_integers(rows, "seq", "prev", "event_ns"),
        decimals(rows["ref_price"]),
        *_integers(rows, "feature_hash", "published_ns", "names_id"),
    ]
    width = rows["values"].shape[1]
    values = decimals(rows["values"].reshape(-1))
    return [
        _FEATURES % head + _named(head[-1], values[start : start + width])
        for head, start in zip(zip(*heads, strict=True), range(0, len(values), width), strict=True)
    ]


def _named(names_id: int, values: list[bytes]) -> bytes:
    template, count = _VALUES[names_id]
    return template % tuple(values[:count])


def encode_symbol_name(symbol: bytes) -> bytes:
    """Return a symbol as JSON text, with quotes."""
    return orjson.dumps(symbol.decode("ascii"))


def _integers(rows: Records, *names: str) -> list[list[Any]]:
    return [rows[name].tolist() for name in names]
