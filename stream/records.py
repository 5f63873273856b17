"""What flows: TICK, PREDICTION, REJECTED, OUTCOME, MODEL_EVENT and FEATURES records, and their block.

Everything that moves is a *block*: a 16-byte header and N fixed-width little-endian records, one Kafka
message for each partition and millisecond or two. Decoding is ``np.frombuffer``: no parsing, no copy.

Evolution rules (golden-bytes tests hold them, ``tests/stream/test_records.py``):

1. Append only: a new field goes to the end of its record and raises that record's version.
2. A new field has a default that means "not known" (NaN, 0 or -1), so older records can be widened.
3. Fields are never reordered, renamed to mean something else, or removed.
4. A field never changes its type or its unit.

What is called ``reserved`` is no field yet but room for one, always 0: a version may give it a name, a type and a
meaning. So did version 2 of PREDICTION (`spread_bps`); a block of version 1 is read, as one that does not know it.

FEATURES end in as many values as there are features: new fields go before them. Features are append only as well,
so that a block of fewer is widened with NaN. How many it has follows from the ``record_bytes`` of its header.

A block of a version that we do not know is refused with `UnknownVersion`; it is never guessed at.
"""

import functools
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import BadBlock, RecordError, UnknownVersion

SYMBOL_BYTES: Final = 24  # an OCC option symbol has 21; three 64-bit words hash and compare quickly


class TickKind(IntEnum):
    """What a tick tells. The numbers are on the wire: append only."""

    TRADE = 1
    QUOTE = 2
    HALT = 3  # the symbol does not trade from event_ns on; such a tick needs no numbers
    RESUME = 4  # it trades again


class Reject(IntEnum):
    """Why a tick was not used. The numbers are on the wire: append only."""

    NOT_FINITE = 1
    NOT_POSITIVE = 2
    NEGATIVE_SIZE = 3
    CROSSED = 4
    LATE = 5
    FUTURE = 6
    BAD_KIND = 7
    BAD_SYMBOL = 8
    MISSING_SIDE = 9
    TOO_MANY_SYMBOLS = 10
    OUT_OF_RANGE = 11
    OUTLIER = 12
    HALTED = 13
    UNKNOWN_SYMBOL = 14
    WRONG_PARTITION = 15
    BAD_SEQUENCE = 16


# Bits of PREDICTION["flags"]: this one and those of `Mark`. Append only: a bit never changes its meaning.
FLAG_WARMING: Final = 1  # fewer ticks seen than the model's warm-up: treat with care


class Mark(IntEnum):
    """What is odd about the tick that a prediction follows, as bits of ``PREDICTION["flags"]``."""

    OUT_OF_ORDER = 2  # older than the symbol's newest
    LOCKED = 4  # bid = ask
    ZERO_SIZE = 8  # a trade of nothing
    CARRIED = 16  # one side of the quote was not told, and is the last one
    CLOCK_SKEW = 32  # ahead of its own recv_ns
    LEVEL_SHIFT = 64  # the first at a new price level, after ticks that were refused as outliers


TICK: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),  # ASCII, zero padded; one source per symbol
        ("event_ns", "<i8"),  # when it happened at the venue, ns since 1970 UTC
        ("recv_ns", "<i8"),  # when we received it
        ("source_seq", "<u8"),  # strictly increasing per symbol and stream: the key of deduplication
        ("price", "<f8"),  # trade price; NaN in a quote
        ("size", "<f8"),  # trade size; NaN in a quote
        ("bid", "<f8"),  # NaN in a trade, and where that side is missing
        ("ask", "<f8"),
        ("bid_size", "<f8"),  # NaN where the venue does not tell
        ("ask_size", "<f8"),
        ("stream_id", "<u4"),  # which run of which feed numbered source_seq
        ("kind", "<u2"),  # TickKind
        ("side", "<i2"),  # aggressor of a trade: +1 buyer, -1 seller, 0 not known
    ]
)

PREDICTION: Final = np.dtype(
    [
        # What was predicted: the same bytes however ticks were cut into blocks and wherever we were killed.
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("seq", "<u8"),  # per symbol, from 1, gap-free: (symbol, seq) identifies a prediction
        ("event_ns", "<i8"),  # of the tick that it follows
        ("ref_price", "<f8"),  # the price that the expected return refers to
        ("horizon_ns", "<i8"),
        ("model_id", "<u8"),  # first 8 bytes of the SHA-256 of the model's weights
        ("feature_hash", "<u8"),  # FNV-1a, in four strands of 64-bit words, of the feature row
        ("p_down", "<f4"),
        ("p_flat", "<f4"),
        ("p_up", "<f4"),
        ("expected_return_bps", "<f4"),
        ("flags", "<u4"),
        # Where it came from: depends on how ticks were cut into blocks.
        ("source_index", "<u4"),  # of the tick in its block
        ("source_partition", "<i4"),
        # Content as well, here since version 2: of the mid, the feature of this name to the bit; NaN where one side
        # of the book is not known yet, and in version 1.
        ("spread_bps", "<f4"),
        ("source_offset", "<i8"),
        # When each stage ended, ns since 1970 UTC, all by the clocks of our own machines.
        ("recv_ns", "<i8"),  # source received the tick
        ("consumed_ns", "<i8"),  # lane took the block
        ("features_ns", "<i8"),  # windows and features done
        ("inferred_ns", "<i8"),  # model step done
        ("published_ns", "<i8"),  # handed to the producer
    ]
)

_PREDICTION_NAMES: Final = PREDICTION.names or ()
# What was predicted, and seen then: the fields, and which bytes of a record they are.
PREDICTION_CONTENT: Final = (*_PREDICTION_NAMES[: _PREDICTION_NAMES.index("source_index")], "spread_bps")
PREDICTION_CONTENT_BYTES: Final = np.concatenate(
    [PREDICTION.fields[name][1] + np.arange(PREDICTION[name].itemsize) for name in PREDICTION_CONTENT]  # type: ignore[index]
)
STAGES: Final = ("recv_ns", "consumed_ns", "features_ns", "inferred_ns", "published_ns")

REJECTED: Final = np.dtype(
    [
        ("tick", TICK),
        ("reason", "<u4"),  # Reject
        ("source_index", "<u4"),
        ("source_partition", "<i4"),
        ("reserved", "<i4"),
        ("source_offset", "<i8"),
    ]
)

# Bits of OUTCOME["flags"]. Append only.
OUTCOME_SHADOW: Final = 1  # of a challenger: the prediction was stored, not served
OUTCOME_WARMING: Final = 2  # the prediction had FLAG_WARMING

OUTCOME: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("seq", "<u8"),  # (symbol, seq, model_id) identifies the prediction, and its outcome
        ("model_id", "<u8"),
        ("event_ns", "<i8"),  # of the tick that was predicted from
        ("from_ns", "<i8"),  # newest event time of the symbol then: the horizon is counted from here
        ("resolved_ns", "<i8"),  # event time of the tick that told: the first after from_ns + horizon_ns
        ("horizon_ns", "<i8"),
        ("ref_price", "<f8"),  # when it was predicted
        ("later_price", "<f8"),  # at the horizon
        ("return_bps", "<f4"),  # realised
        ("expected_return_bps", "<f4"),
        ("p_down", "<f4"),
        ("p_flat", "<f4"),
        ("p_up", "<f4"),
        ("fallback_down", "<f4"),  # what the fallback said then, of what it knew then; NaN where not known
        ("fallback_flat", "<f4"),
        ("fallback_up", "<f4"),
        ("log_loss", "<f4"),
        ("brier", "<f4"),
        ("fallback_log_loss", "<f4"),  # NaN where not known
        ("cost_bps", "<f4"),  # of a position, both ways: half of the spread at each end, and fees
        ("realised", "<u2"),  # 0 down, 1 flat, 2 up, by the dead band of the model
        ("flags", "<u2"),  # OUTCOME_SHADOW, OUTCOME_WARMING
        ("source_partition", "<i4"),
    ]
)


class ModelEventKind(IntEnum):
    """What happened to a model. The numbers are on the wire: append only."""

    SERVED = 1  # a promotion was seen: it is the champion
    TRIPPED = 2  # a sequential test found it worse than the other
    ROLLED_BACK = 3  # the other was put in its place
    ROLLBACK_FAILED = 4  # there was nothing to go back to, or it must not serve
    DRIFTED = 5  # inputs or answers left the training span


MODEL_EVENT: Final = np.dtype(
    [
        ("at_ns", "<i8"),  # our clock
        ("event_ns", "<i8"),  # the market's, 0 where it has none
        ("model_id", "<u8"),
        ("other_id", "<u8"),  # what it was compared with or replaced by; 0 is the fallback
        ("value", "<f8"),  # of the statistic: e-value of a test, PSI of a drift
        ("predictions", "<u8"),  # outcomes of model_id that are known since it was promoted
        ("kind", "<u4"),  # ModelEventKind
        ("reserved", "<u4"),
        ("detail", "S168"),  # in words, ASCII
    ]
)

FEATURES_HEAD: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("seq", "<u8"),  # of the prediction that was made of it
        ("event_ns", "<i8"),
        ("ref_price", "<f8"),
        ("feature_hash", "<u8"),  # of the values, as in the prediction
        ("names_id", "<u8"),  # what the values are called: agents/feature_names.py
        ("source_offset", "<i8"),
        ("source_index", "<u4"),
        ("source_partition", "<i4"),
        ("published_ns", "<i8"),  # handed to the producer, with its prediction
    ]
)


FEATURE_BYTES: Final = 4


@functools.cache
def features_record(count: int) -> np.dtype[np.void]:
    """Return the FEATURES record of ``count`` features: FEATURES_HEAD, and ``values``, ``float32[count]``."""
    return np.dtype([*FEATURES_HEAD.descr, ("values", "<f4", (count,))])


HEADER: Final = np.dtype(
    [
        ("magic", "S4"),
        ("kind", "<u2"),
        ("version", "<u2"),
        ("count", "<u4"),
        ("record_bytes", "<u4"),
    ]
)
_HEADER: Final = struct.Struct("<4sHHII")  # the same: numpy takes 2 us for it
MAGIC: Final = b"TLB1"
_KINDS: Final = {TICK: (1, 1), PREDICTION: (2, 2), REJECTED: (3, 1), OUTCOME: (4, 1), MODEL_EVENT: (5, 1)}
_FEATURES: Final = 6, 1
PREDICTION_WITHOUT_SPREAD: Final = 1  # a version that is read and widened
_NAMES: Final = {1: "TICK", 2: "PREDICTION", 3: "REJECTED", 4: "OUTCOME", 5: "MODEL_EVENT", 6: "FEATURES"}

# A block stays well below the broker's default limit of 1 MiB for a message, header and all.
MAX_BLOCK_RECORDS: Final = 4096

Records = NDArray[np.void]


def encode_block(records: Records, version: int | None = None) -> bytes:
    """Return ``records`` as the bytes of one block.

    Args:
        records: ``TICK[N]`` or one of the others, 1 <= N <= MAX_BLOCK_RECORDS.
        version: an older one that is read, for the bytes of a block that was widened; None is the newest.

    Raises:
        RecordError: no such record or version, not one-dimensional, or N is out of bounds.
    """
    kind, newest = _kind_of(records.dtype)
    version = newest if version is None else version
    if version != newest and not _is_widened(records.dtype, version):
        raise RecordError(f"{_NAMES[kind]} has no version {version} that can be written; the newest is {newest}")
    if records.ndim != 1:
        raise RecordError(f"a block is a one-dimensional array of records, not one of shape {records.shape}")
    if not 1 <= len(records) <= MAX_BLOCK_RECORDS:
        raise RecordError(f"a block holds 1 to {MAX_BLOCK_RECORDS} records, not {len(records)}")
    if version != newest:
        records = records.copy()
        records["spread_bps"] = 0.0  # the bytes of what was reserved
    header = _HEADER.pack(MAGIC, kind, version, len(records), records.dtype.itemsize)
    return b"".join((header, np.ascontiguousarray(records).view(np.uint8).data))


def decode_block(data: bytes, dtype: np.dtype[np.void]) -> Records:
    """Return the records of one block, read-only: a view on ``data``, or a copy of an older version, widened.

    Args:
        data: one whole block, as `encode_block` made it.
        dtype: the record that is expected, such as `TICK`.

    Raises:
        BadBlock: not a block, truncated, too long, or of another record.
        UnknownVersion: a block of a version that this tickloom does not know.
    """
    if len(data) < HEADER.itemsize:
        raise BadBlock(f"a block has a header of {HEADER.itemsize} bytes; these are {len(data)} bytes in all")
    magic, kind, version, count, record_bytes = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BadBlock(f"a block starts with {MAGIC!r}; these bytes start with {data[:4]!r}")
    expected_kind, expected_version = _kind_of(dtype)
    if kind != expected_kind:
        raise BadBlock(f"expected a block of {_NAMES[expected_kind]}; this one is of {_NAMES.get(kind, kind)}")
    is_widened = version != expected_version and _is_widened(dtype, version)
    if version != expected_version and not is_widened:
        readable = f"versions {PREDICTION_WITHOUT_SPREAD} and" if dtype == PREDICTION else "version"
        raise UnknownVersion(
            f"{_NAMES[kind]} block of version {version}; this tickloom reads {readable} {expected_version}"
        )
    if record_bytes != dtype.itemsize or len(data) != HEADER.itemsize + count * record_bytes or count == 0:
        raise BadBlock(
            f"{_NAMES[kind]} block says {count} records of {record_bytes} bytes in {len(data)} bytes; "
            f"right would be {HEADER.itemsize} + count x {dtype.itemsize} with count >= 1"
        )
    records = np.frombuffer(data, dtype, count, HEADER.itemsize)
    if is_widened:
        records = records.copy()
        records["spread_bps"] = np.nan
        records.flags.writeable = False
    return records


def version_of(data: bytes) -> int:
    """Return the version of a block that `decode_block` reads."""
    return int(_HEADER.unpack_from(data)[2])


def _is_widened(dtype: np.dtype[np.void], version: int) -> bool:
    return version == PREDICTION_WITHOUT_SPREAD and dtype == PREDICTION


def _kind_of(dtype: np.dtype[np.void]) -> tuple[int, int]:
    known = _KINDS.get(dtype)
    if known is None and dtype.names == (*(FEATURES_HEAD.names or ()), "values"):
        count = (dtype.itemsize - FEATURES_HEAD.itemsize) // FEATURE_BYTES
        known = _FEATURES if dtype == features_record(count) else None
    if known is None:
        raise RecordError(f"a block holds {', '.join(_NAMES.values())} records, not {dtype}")
    return known


def join_records(parts: Sequence[Records]) -> Records:
    """Return one array of the records of several, all of one dtype: 60 times as fast as ``np.concatenate``, which
    compares the fields of the dtypes."""
    if len(parts) == 1:
        return parts[0]
    raw = b"".join([part.tobytes() for part in parts])
    return np.frombuffer(raw, parts[0].dtype)


def encode_symbol(symbol: str) -> bytes:
    """Return a symbol as it stands in a record.

    Raises:
        RecordError: empty, longer than SYMBOL_BYTES, or not printable ASCII without spaces.
    """
    raw = symbol.encode("ascii", "replace")
    if not 1 <= len(raw) <= SYMBOL_BYTES or not symbol.isascii() or not all(33 <= byte <= 126 for byte in raw):
        raise RecordError(
            f"a symbol is 1 to {SYMBOL_BYTES} printable ASCII characters without spaces, not {symbol!r}"
        )
    return raw


def symbol_words(symbols: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the ``S24[N]`` symbols as ``uint64[N, 3]`` words, which compare and hash quickly."""
    return np.ascontiguousarray(symbols).view("<u8").reshape(len(symbols), SYMBOL_BYTES // 8)


def partition_of(symbols: NDArray[np.bytes_], partitions: int) -> NDArray[np.int32]:
    """Return the partition that each symbol lives in: ``int32[N]``.

    A producer in another language does the same: with the symbol's 24 zero-padded bytes as three
    little-endian words w0, w1, w2, and ``mix`` the finaliser of SplitMix64, all modulo 2**64:
    ``mix(mix(mix(w0) ^ w1) ^ w2) % partitions``.

    Args:
        symbols: ``S24[N]``.
        partitions: how many partitions the topic has.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
    """
    words = symbol_words(symbols)
    mixed = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        mixed = _splitmix64(mixed ^ words[:, column])
    return (mixed % np.uint64(partitions)).astype(np.int32)


def _splitmix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def empty_ticks(count: int) -> Records:
    """Return ``TICK[count]`` with every price and size NaN and everything else 0."""
    ticks = np.zeros(count, TICK)
    for name in ("price", "size", "bid", "ask", "bid_size", "ask_size"):
        ticks[name] = np.nan
    return ticks
