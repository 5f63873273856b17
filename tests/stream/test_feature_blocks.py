"""Blocks of FEATURES: how long they may be, how one of fewer features is read, what is refused."""

import numpy as np
import pytest

from stream.errors import BadBlock, UnknownVersion
from stream.feature_blocks import decode_features, feature_hashes, features_per_block, names_id_of
from stream.records import HEADER, MAX_BLOCK_RECORDS, PREDICTION, Records, encode_block, features_record

BROKER_LIMIT_BYTES = 1_000_000  # as in test_records.py


def some_rows(features: int, count: int = 5) -> Records:
    rows = np.zeros(count, features_record(features))
    rows["symbol"], rows["seq"] = b"AAPL", np.arange(1, count + 1)
    rows["values"] = np.random.default_rng(1).normal(size=(count, features))
    rows["feature_hash"], rows["names_id"] = feature_hashes(rows["values"]), 2**64 - 5
    return rows


def test_what_was_encoded_is_decoded() -> None:
    rows = some_rows(80)
    assert decode_features(encode_block(rows), 80).tobytes() == rows.tobytes()


def test_a_block_of_fewer_features_is_widened_with_what_means_not_known() -> None:
    rows = some_rows(80)
    wide = decode_features(encode_block(rows), 96)
    assert wide.dtype == features_record(96)
    assert wide["values"][:, :80].tobytes() == rows["values"].tobytes()
    assert np.isnan(wide["values"][:, 80:]).all()
    for name in rows.dtype.names[:-1]:
        assert wide[name].tolist() == rows[name].tolist()


def test_a_block_of_more_features_is_refused() -> None:
    with pytest.raises(UnknownVersion, match="of 88 features; this tickloom reads 80 or fewer"):
        decode_features(encode_block(some_rows(88)), 80)


def _with_record_bytes(size: int) -> bytes:
    block = bytearray(encode_block(some_rows(80)))
    at = HEADER.fields["record_bytes"][1]
    block[at : at + 4] = size.to_bytes(4, "little")
    return bytes(block)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"garbage that is no block of anything",
        encode_block(some_rows(80))[:-1],
        encode_block(np.zeros(3, PREDICTION)),
        *(_with_record_bytes(size) for size in (0, 87, 88, 90, 400, 404, 412, 440, 2**32 - 1)),
    ],
    ids=str,
)
def test_what_is_no_block_of_features_is_refused(block: bytes) -> None:
    with pytest.raises(BadBlock):
        decode_features(block, 80)


def test_a_row_that_is_not_what_was_published_is_refused() -> None:
    block = bytearray(encode_block(some_rows(80)))
    block[-7] ^= 1
    with pytest.raises(BadBlock, match="1 of 5 rows have not the hash of their values"):
        decode_features(bytes(block), 80)


def test_the_names_of_a_block_are_known_before_it_is_read() -> None:
    block = encode_block(some_rows(80))
    assert names_id_of(block) == 2**64 - 5
    assert names_id_of(block[:79]) is None
    assert names_id_of(b"") is None


@pytest.mark.parametrize("features", [8, 80, 160, 1000])
def test_the_largest_block_fits_into_a_message_of_a_broker_with_defaults(features: int) -> None:
    count = features_per_block(features)
    assert 1 <= count <= MAX_BLOCK_RECORDS
    assert len(encode_block(np.zeros(count, features_record(features)))) < BROKER_LIMIT_BYTES


def test_a_hash_knows_every_bit_of_a_row() -> None:
    values = some_rows(80)["values"][:1].copy()
    hashes = set(feature_hashes(values).tolist())
    for place in range(80):
        other = values.copy()
        other.view("<u4")[0, place] ^= 1
        hashes |= set(feature_hashes(other).tolist())
    assert len(hashes) == 81
