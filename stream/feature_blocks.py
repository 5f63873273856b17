"""Blocks of FEATURES: how many rows fit into one, and how one is read, checked, and widened where it is short.

The record is in `stream/records.py`; what the values are called is told by the topic ``features.names``.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import BadBlock, UnknownVersion
from stream.records import (
    FEATURE_BYTES,
    FEATURES_HEAD,
    HEADER,
    MAX_BLOCK_RECORDS,
    Records,
    decode_block,
    features_record,
)

_MAX_BYTES: Final = 800_000  # a broker with defaults takes messages of 1,000,000
_MOST_FEATURES: Final = 4096  # of a record that is taken for one, whatever a header says
_FNV_START: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
_STRANDS: Final = 4
_WORD_VALUES: Final = 2


def features_per_block(count: int) -> int:
    """Return how many FEATURES of ``count`` values a block may hold."""
    return min(MAX_BLOCK_RECORDS, _MAX_BYTES // features_record(count).itemsize)


def decode_features(data: bytes, count: int) -> Records:
    """Return one block of FEATURES as ``features_record(count)[N]``; where it has fewer values, the rest is NaN.

    Args:
        data: one whole block.
        count: how many features this tickloom has.

    Raises:
        BadBlock: not a block, truncated, too long, or of another record; or the values of a row are not those that
            were published, by their hash.
        UnknownVersion: a block of a version that this tickloom does not know, or of more features than it has.
    """
    seen = _values_of(data)
    if seen is None:
        return decode_block(data, features_record(count))  # which says what is wrong
    rows = decode_block(data, features_record(seen))
    if seen > count:
        raise UnknownVersion(f"FEATURES block of {seen} features; this tickloom reads {count} or fewer")
    wrong = np.flatnonzero(feature_hashes(rows["values"]) != rows["feature_hash"])
    if len(wrong):
        raise BadBlock(
            f"FEATURES block in which {len(wrong)} of {len(rows)} rows have not the hash of their values"
        )
    if seen == count:
        return rows
    wide = np.zeros(len(rows), features_record(count))
    for name in FEATURES_HEAD.names or ():
        wide[name] = rows[name]
    wide["values"][:, :seen], wide["values"][:, seen:] = rows["values"], np.nan
    return wide


def names_id_of(data: bytes) -> int | None:
    """Return the ``names_id`` of the first row of a block; None where it is too short to have one.

    All rows of a block come from one lane, and have the same.
    """
    start = HEADER.itemsize + int(FEATURES_HEAD.fields["names_id"][1])  # type: ignore[index]
    return int.from_bytes(data[start : start + 8], "little") if len(data) >= start + 8 else None


def feature_hashes(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the ``feature_hash`` of feature rows, as `agents/kernel.py` computes it: ``uint64[N]``.

    Args:
        values: ``float32[N, F]``, F a multiple of 8, without what a block of fewer features was widened with.

    Source: FNV-1a (Fowler, Noll, Vo) over 64-bit words in four strands, and over the four results.
    """
    words: NDArray[Any] = np.ascontiguousarray(values).view("<u8").reshape(len(values), -1, _STRANDS)
    strands = np.full((len(values), _STRANDS), _FNV_START)
    for at in range(words.shape[1]):
        strands = (strands ^ words[:, at]) * _FNV_PRIME
    hashes = np.full(len(values), _FNV_START)
    for strand in range(_STRANDS):
        hashes = (hashes ^ strands[:, strand]) * _FNV_PRIME
    return hashes


def _values_of(data: bytes) -> int | None:
    """Return how many values its header says that a record has; None where that cannot be."""
    offset = int(HEADER.fields["record_bytes"][1])  # type: ignore[index]
    values_bytes = int.from_bytes(data[offset : offset + 4], "little") - FEATURES_HEAD.itemsize
    count, rest = divmod(values_bytes, FEATURE_BYTES)
    return count if rest == 0 and 1 <= count <= _MOST_FEATURES and count % (_STRANDS * _WORD_VALUES) == 0 else None
