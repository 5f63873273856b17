"""Records on the wire: their bytes, their refusals, and the partition that a symbol lives in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import BadBlock, RecordError, UnknownVersion
from stream.records import (
    FLAG_WARMING,
    HEADER,
    MAX_BLOCK_RECORDS,
    MODEL_EVENT,
    OUTCOME,
    OUTCOME_SHADOW,
    OUTCOME_WARMING,
    PREDICTION,
    PREDICTION_CONTENT,
    PREDICTION_CONTENT_BYTES,
    PREDICTION_WITHOUT_SPREAD,
    REJECTED,
    STAGES,
    SYMBOL_BYTES,
    TICK,
    Mark,
    ModelEventKind,
    Records,
    Reject,
    TickKind,
    decode_block,
    empty_ticks,
    encode_block,
    encode_symbol,
    features_record,
    join_records,
    partition_of,
    version_of,
)

ALL_RECORDS = (TICK, PREDICTION, REJECTED, OUTCOME, MODEL_EVENT)
BROKER_LIMIT_BYTES = 1_000_000  # Kafka's default message.max.bytes is 1,048,588

# One block of each record, as it is on the wire. A change of any byte below breaks every producer, consumer and
# stored topic that there is: append a field and raise the record's version instead (stream/records.py).
GOLDEN_TICKS = bytes.fromhex("""
    544c4231 0100 0100 02000000 68000000

    4141504c0000000000000000000000000000000000000000
    01002a36fe9c9717 02002a36fe9c9717 0300000000000000
    0000000000b06740 0000000000005940
    000000000000f87f 000000000000f87f 000000000000f87f 000000000000f87f
    07000000 0100 ffff

    4142434445464748494a4b4c4d4e4f505152535455565758
    ffffffffffffffff ffffffffffffff7f ffffffffffffffff
    000000000000f87f 000000000000f87f
    000000000000f03f 0000000000000040 0000000000000840 0000000000001040
    ffffffff 0200 0000
""")
# Version 1 of PREDICTION, which engines before 0.1.0 wrote: read for ever.
GOLDEN_PREDICTION_1 = bytes.fromhex("""
    544c4231 0200 0100 01000000 98000000

    4141504c0000000000000000000000000000000000000000
    0100000000000000 0200000000000000 0000000000b06740 00ca9a3b00000000
    ffffffffffffffff 0400000000000000
    0000803e 0000003f 0000803e 0000c0bf 01000000
    05000000 06000000 00000000 0700000000000000
    0800000000000000 0900000000000000 0a00000000000000 0b00000000000000 0c00000000000000
""")
GOLDEN_PREDICTION = bytes.fromhex("""
    544c4231 0200 0200 01000000 98000000

    4141504c0000000000000000000000000000000000000000
    0100000000000000 0200000000000000 0000000000b06740 00ca9a3b00000000
    ffffffffffffffff 0400000000000000
    0000803e 0000003f 0000803e 0000c0bf 01000000
    05000000 06000000 00002040 0700000000000000
    0800000000000000 0900000000000000 0a00000000000000 0b00000000000000 0c00000000000000
""")
GOLDEN_REJECTED = bytes.fromhex("""
    544c4231 0300 0100 01000000 80000000

    4141504c0000000000000000000000000000000000000000
    01002a36fe9c9717 02002a36fe9c9717 0300000000000000
    0000000000b06740 0000000000005940
    000000000000f87f 000000000000f87f 000000000000f87f 000000000000f87f
    07000000 0100 ffff
    04000000 05000000 06000000 00000000 0700000000000000
""")
GOLDEN_OUTCOME = bytes.fromhex("""
    544c4231 0400 0100 01000000 90000000

    4141504c0000000000000000000000000000000000000000
    0100000000000000 ffffffffffffffff 0200000000000000 0300000000000000 0e00000000000000 0a00000000000000
    0000000000b06740 0000000000c06740
    7b14d341 0000c0bf 0000803e 0000003f 0000803e 0000003e 0000003f 0000c03e 7368b13f 0000903f 48e17a3f 0000003f
    0200 0300 05000000
""")
GOLDEN_MODEL_EVENT = bytes.fromhex("""
    544c4231 0500 0100 01000000 e0000000

    0100000000000000 0200000000000000 ffffffffffffffff 0400000000000000 000000008040bf40 0600000000000000
    03000000 00000000 697420776173 20776f727365
""") + bytes(156)

GOLDEN_FEATURES = bytes.fromhex("""
    544c4231 0600 0100 01000000 78000000

    4141504c0000000000000000000000000000000000000000
    0100000000000000 0200000000000000 0000000000b06740 ffffffffffffffff 0400000000000000
    0700000000000000 05000000 06000000 0c00000000000000
    0000803e 0000003f 0000c0bf 00007942 00000000 000080bf 00002041 00247449
""")

LAYOUTS = {
    "HEADER": (HEADER, 16, "magic S4 0, kind <u2 4, version <u2 6, count <u4 8, record_bytes <u4 12"),
    "TICK": (
        TICK,
        104,
        "symbol S24 0, event_ns <i8 24, recv_ns <i8 32, source_seq <u8 40, price <f8 48, size <f8 56, "
        "bid <f8 64, ask <f8 72, bid_size <f8 80, ask_size <f8 88, stream_id <u4 96, kind <u2 100, side <i2 102",
    ),
    "PREDICTION": (
        PREDICTION,
        152,
        "symbol S24 0, seq <u8 24, event_ns <i8 32, ref_price <f8 40, horizon_ns <i8 48, model_id <u8 56, "
        "feature_hash <u8 64, p_down <f4 72, p_flat <f4 76, p_up <f4 80, expected_return_bps <f4 84, "
        "flags <u4 88, source_index <u4 92, source_partition <i4 96, spread_bps <f4 100, source_offset <i8 104, "
        "recv_ns <i8 112, consumed_ns <i8 120, features_ns <i8 128, inferred_ns <i8 136, published_ns <i8 144",
    ),
    "REJECTED": (
        REJECTED,
        128,
        "tick V104 0, reason <u4 104, source_index <u4 108, source_partition <i4 112, reserved <i4 116, "
        "source_offset <i8 120",
    ),
    "OUTCOME": (
        OUTCOME,
        144,
        "symbol S24 0, seq <u8 24, model_id <u8 32, event_ns <i8 40, from_ns <i8 48, resolved_ns <i8 56, "
        "horizon_ns <i8 64, ref_price <f8 72, later_price <f8 80, return_bps <f4 88, expected_return_bps <f4 92, "
        "p_down <f4 96, p_flat <f4 100, p_up <f4 104, fallback_down <f4 108, fallback_flat <f4 112, "
        "fallback_up <f4 116, log_loss <f4 120, brier <f4 124, fallback_log_loss <f4 128, cost_bps <f4 132, "
        "realised <u2 136, flags <u2 138, source_partition <i4 140",
    ),
    "MODEL_EVENT": (
        MODEL_EVENT,
        224,
        "at_ns <i8 0, event_ns <i8 8, model_id <u8 16, other_id <u8 24, value <f8 32, predictions <u8 40, "
        "kind <u4 48, reserved <u4 52, detail S168 56",
    ),
    # Of 8 features; of others, only the last field is longer.
    "FEATURES": (
        features_record(8),
        120,
        "symbol S24 0, seq <u8 24, event_ns <i8 32, ref_price <f8 40, feature_hash <u8 48, names_id <u8 56, "
        "source_offset <i8 64, source_index <u4 72, source_partition <i4 76, published_ns <i8 80, values V32 88",
    ),
}


def golden_ticks() -> Records:
    nan = np.nan
    ticks = np.zeros(2, TICK)
    received_ns = 1_700_000_000_000_000_002
    ticks[0] = (b"AAPL", received_ns - 1, received_ns, 3, 189.5, 100.0, nan, nan, nan, nan, 7, 1, -1)
    ticks[1] = (b"ABCDEFGHIJKLMNOPQRSTUVWX", -1, 2**63 - 1, 2**64 - 1, nan, nan, 1, 2, 3, 4, 2**32 - 1, 2, 0)
    return ticks


def golden_prediction() -> Records:
    record = np.zeros(1, PREDICTION)
    content = (b"AAPL", 1, 2, 189.5, 1_000_000_000, 2**64 - 1, 4, 0.25, 0.5, 0.25, -1.5, 1)
    record[0] = (*content, 5, 6, 2.5, 7, 8, 9, 10, 11, 12)
    return record


def golden_rejected() -> Records:
    record = np.zeros(1, REJECTED)
    record[0] = (golden_ticks()[0], Reject.CROSSED, 5, 6, 0, 7)
    return record


def golden_outcome() -> Records:
    record = np.zeros(1, OUTCOME)
    identity = (b"AAPL", 1, 2**64 - 1, 2, 3, 14, 10, 189.5, 190.0)
    scores = (26.385, -1.5, 0.25, 0.5, 0.25, 0.125, 0.5, 0.375, 1.386, 1.125, 0.98, 0.5)
    record[0] = (*identity, *scores, 2, OUTCOME_SHADOW | OUTCOME_WARMING, 5)
    return record


def golden_model_event() -> Records:
    record = np.zeros(1, MODEL_EVENT)
    record[0] = (1, 2, 2**64 - 1, 4, 8000.5, 6, ModelEventKind.ROLLED_BACK, 0, b"it was worse")
    return record


def golden_features() -> Records:
    record = np.zeros(1, features_record(8))
    values = (0.25, 0.5, -1.5, 62.25, 0.0, -1.0, 10.0, 1e6)
    record[0] = (b"AAPL", 1, 2, 189.5, 2**64 - 1, 4, 7, 5, 6, 12, values)
    return record


@pytest.mark.parametrize(
    ("records", "block"),
    [
        (golden_ticks(), GOLDEN_TICKS),
        (golden_prediction(), GOLDEN_PREDICTION),
        (golden_rejected(), GOLDEN_REJECTED),
        (golden_outcome(), GOLDEN_OUTCOME),
        (golden_model_event(), GOLDEN_MODEL_EVENT),
        (golden_features(), GOLDEN_FEATURES),
    ],
    ids=["TICK", "PREDICTION", "REJECTED", "OUTCOME", "MODEL_EVENT", "FEATURES"],
)
def test_the_bytes_of_a_block_never_change(records: Records, block: bytes) -> None:
    assert encode_block(records).hex() == block.hex()
    assert decode_block(block, records.dtype).tobytes() == records.tobytes()


def test_a_prediction_from_before_spreads_is_read_and_has_none() -> None:
    widened = decode_block(GOLDEN_PREDICTION_1, PREDICTION)
    expected = golden_prediction()
    expected["spread_bps"] = np.nan
    assert widened.tobytes() == expected.tobytes()
    assert not widened.flags.writeable
    # An archive gives back the very message that it was given.
    assert version_of(GOLDEN_PREDICTION_1) == PREDICTION_WITHOUT_SPREAD == 1
    assert encode_block(widened, PREDICTION_WITHOUT_SPREAD).hex() == GOLDEN_PREDICTION_1.hex()
    assert np.isnan(widened["spread_bps"]).all(), "what was read is not touched"


@pytest.mark.parametrize("version", [0, 3, 65535])
def test_a_version_of_a_record_that_there_is_not_is_neither_read_nor_written(version: int) -> None:
    block = bytearray(GOLDEN_PREDICTION)
    block[6:8] = version.to_bytes(2, "little")
    with pytest.raises(UnknownVersion, match=f"PREDICTION block of version {version}; .* reads versions 1 and 2"):
        decode_block(bytes(block), PREDICTION)
    with pytest.raises(RecordError, match=f"PREDICTION has no version {version} that can be written"):
        encode_block(golden_prediction(), version)
    with pytest.raises(RecordError, match="TICK has no version 2 that can be written"):
        encode_block(golden_ticks(), 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_record_of_a_version_never_changes_its_layout(name: str) -> None:
    dtype, size, layout = LAYOUTS[name]
    fields = [(field, *dtype.fields[field][:2]) for field in dtype.names]
    assert dtype.itemsize == size
    assert ", ".join(f"{field} {kind.str.strip('|')} {offset}" for field, kind, offset in fields) == layout


def test_numbers_with_a_meaning_on_the_wire_never_change() -> None:
    assert {kind.name: kind.value for kind in TickKind} == {"TRADE": 1, "QUOTE": 2, "HALT": 3, "RESUME": 4}
    assert [reason.name for reason in sorted(Reject)] == [
        "NOT_FINITE",
        "NOT_POSITIVE",
        "NEGATIVE_SIZE",
        "CROSSED",
        "LATE",
        "FUTURE",
        "BAD_KIND",
        "BAD_SYMBOL",
        "MISSING_SIDE",
        "TOO_MANY_SYMBOLS",
        "OUT_OF_RANGE",
        "OUTLIER",
        "HALTED",
        "UNKNOWN_SYMBOL",
        "WRONG_PARTITION",
        "BAD_SEQUENCE",
    ]
    assert [reason.value for reason in sorted(Reject)] == list(range(1, len(Reject) + 1))
    assert FLAG_WARMING == 1
    assert (OUTCOME_SHADOW, OUTCOME_WARMING) == (1, 2)
    assert [kind.name for kind in sorted(ModelEventKind)] == [
        "SERVED",
        "TRIPPED",
        "ROLLED_BACK",
        "ROLLBACK_FAILED",
        "DRIFTED",
    ]
    assert [kind.value for kind in sorted(ModelEventKind)] == list(range(1, len(ModelEventKind) + 1))
    assert {mark.name: mark.value for mark in Mark} == {
        "OUT_OF_ORDER": 2,
        "LOCKED": 4,
        "ZERO_SIZE": 8,
        "CARRIED": 16,
        "CLOCK_SKEW": 32,
        "LEVEL_SHIFT": 64,
    }


def test_the_content_of_a_prediction_is_all_that_does_not_depend_on_where_it_came_from() -> None:
    origin = {*STAGES, "source_index", "source_partition", "source_offset"}
    assert set(PREDICTION_CONTENT) == set(PREDICTION.names or ()) - origin
    raw = golden_prediction().view(np.uint8)
    assert raw[PREDICTION_CONTENT_BYTES].tobytes() == b"".join(
        golden_prediction()[name].tobytes() for name in PREDICTION_CONTENT
    )


def records_of(dtype: np.dtype[np.void]) -> st.SearchStrategy[Records]:
    """Any bytes at all: what is in the fields is not the codec's business."""
    return st.integers(1, 40).flatmap(
        lambda count: st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize).map(
            lambda raw: np.frombuffer(raw, dtype)
        )
    )


@given(st.sampled_from(ALL_RECORDS).flatmap(records_of))
def test_what_was_encoded_is_decoded(records: Records) -> None:
    block = encode_block(records)
    decoded = decode_block(block, records.dtype)
    assert len(block) == HEADER.itemsize + records.nbytes
    assert decoded.dtype == records.dtype
    assert decoded.tobytes() == records.tobytes()


def test_a_decoded_block_is_a_read_only_view() -> None:
    decoded = decode_block(GOLDEN_TICKS, TICK)
    assert not decoded.flags.writeable
    assert not decoded.flags.owndata


def test_any_selection_of_records_can_be_encoded() -> None:
    records = np.zeros(10, TICK)
    records["source_seq"] = np.arange(10)
    for selection in (records[::2], records[::-1], records[[7, 3, 3]]):
        assert decode_block(encode_block(selection), TICK).tobytes() == selection.tobytes()


@pytest.mark.parametrize("dtype", ALL_RECORDS)
def test_the_largest_block_fits_into_a_message_of_a_broker_with_defaults(dtype: np.dtype[np.void]) -> None:
    assert len(encode_block(np.zeros(MAX_BLOCK_RECORDS, dtype))) < BROKER_LIMIT_BYTES


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (np.zeros(0, TICK), "1 to 4096 records, not 0"),
        (np.zeros(MAX_BLOCK_RECORDS + 1, TICK), "1 to 4096 records, not 4097"),
        (np.zeros(3), "not float64"),
        (np.zeros(3, TICK)[["symbol", "price"]], "MODEL_EVENT, FEATURES records"),
        (np.zeros(3, features_record(8).newbyteorder(">")), "MODEL_EVENT, FEATURES records"),
        (np.zeros(3, TICK.newbyteorder(">")), "MODEL_EVENT, FEATURES records"),
        # These once made a block whose header said 13 records, and 2: both lies.
        (np.zeros(3, TICK)[0], "one-dimensional"),
        (np.zeros((2, 3), TICK), "one-dimensional"),
    ],
    ids=[
        "none",
        "too many",
        "floats",
        "a part of the fields",
        "big-endian values",
        "big-endian",
        "a single record",
        "two dimensions",
    ],
)
def test_what_is_not_a_block_is_not_encoded(records: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        encode_block(records)


def header(magic: bytes = b"TLB1", kind: int = 1, version: int = 1, count: int = 1, size: int = 104) -> bytes:
    return np.array((magic, kind, version, count, size), HEADER).tobytes()


REFUSED = {
    "nothing": (b"", "header of 16 bytes; these are 0 bytes"),
    "a part of a header": (GOLDEN_TICKS[:15], "these are 15 bytes in all"),
    "a header only": (GOLDEN_TICKS[:16], "says 2 records of 104 bytes in 16 bytes"),
    "JSON": (b'{"symbol": "AAPL", "price": 189.5}', "starts with b'TLB1'; these bytes start with b'{\"sy'"),
    "zeros": (bytes(300), "start with b'.x00"),
    "the next generation of blocks": (b"TLB2" + GOLDEN_TICKS[4:], "these bytes start with b'TLB2'"),
    "truncated by a byte": (GOLDEN_TICKS[:-1], "says 2 records of 104 bytes in 223 bytes"),
    "truncated by a record": (GOLDEN_TICKS[:-104], "says 2 records of 104 bytes in 120 bytes"),
    "too long by a byte": (GOLDEN_TICKS + b"\0", "in 225 bytes"),
    "too long by a record": (GOLDEN_TICKS + bytes(104), "in 328 bytes"),
    "predictions": (GOLDEN_PREDICTION, "expected a block of TICK; this one is of PREDICTION"),
    "rejected ticks": (GOLDEN_REJECTED, "expected a block of TICK; this one is of REJECTED"),
    "an unknown record": (header(kind=9) + bytes(104), "expected a block of TICK; this one is of 9"),
    "no records": (header(count=0), "says 0 records"),
    "a count too high": (header(count=3) + bytes(208), "says 3 records"),
    "a count too low": (header(count=1) + bytes(208), "says 1 records"),
    "a count beyond all memory": (header(count=2**32 - 1) + bytes(104), "says 4294967295 records"),
    "a record size that adds up but is wrong": (header(count=2, size=52) + bytes(104), "records of 52 bytes"),
    "records of no size": (header(count=5, size=0), "records of 0 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bytes_that_are_not_a_block_are_refused_with_what_was_seen(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(BadBlock, match=message):
        decode_block(data, TICK)


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_a_block_of_another_version_is_refused_and_never_guessed_at(version: int) -> None:
    with pytest.raises(UnknownVersion, match=f"TICK block of version {version}; this tickloom reads version 1"):
        decode_block(header(version=version) + bytes(104), TICK)
    # A later version has longer records: that must not look like a damaged block.
    with pytest.raises(UnknownVersion):
        decode_block(header(version=2, size=112) + bytes(112), TICK)


@given(st.binary(max_size=400), st.sampled_from(ALL_RECORDS))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes, dtype: np.dtype[np.void]) -> None:
    with pytest.raises(RecordError):
        decode_block(data, dtype)


@given(st.integers(0, len(GOLDEN_TICKS) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_stays_in_the_records(position: int, damage: int) -> None:
    damaged = bytearray(GOLDEN_TICKS)
    damaged[position] ^= damage
    if position < HEADER.itemsize:
        with pytest.raises(RecordError):
            decode_block(bytes(damaged), TICK)
    else:
        assert len(decode_block(bytes(damaged), TICK)) == 2


@pytest.mark.parametrize("symbol", ["A", "BTCUSDT.spot", "EURUSD=X", "^GSPC", "ABCDEFGHIJKLMNOPQRSTUVWX", "~!"])
def test_a_symbol_stands_in_a_record_as_ascii(symbol: str) -> None:
    raw = encode_symbol(symbol)
    ticks = np.zeros(1, TICK)
    ticks["symbol"] = raw
    assert ticks["symbol"][0].decode() == symbol


@pytest.mark.parametrize("symbol", ["", "A" * 25, "BRK A", "A\n", "A\0", "\0", "Ünited", "株", "A\x7f", "\ud800"])
def test_a_symbol_that_a_record_cannot_hold_is_refused(symbol: str) -> None:
    with pytest.raises(RecordError, match="1 to 24 printable ASCII characters without spaces"):
        encode_symbol(symbol)


def test_empty_ticks_have_no_price_and_no_size() -> None:
    ticks = empty_ticks(3)
    floats = [name for name in TICK.names or () if TICK[name] == np.float64]
    assert floats == ["price", "size", "bid", "ask", "bid_size", "ask_size"]
    for name in TICK.names or ():
        empty = np.isnan(ticks[name]) if name in floats else ticks[name] == np.zeros(1, TICK[name])
        assert empty.all(), name


# As a producer in another language computes it: plain integers, from the words of the docstring.
def partition_by_hand(symbol: bytes, partitions: int) -> int:
    mixed = 0
    for start in range(0, 24, 8):
        mixed ^= int.from_bytes(symbol.ljust(24, b"\0")[start : start + 8], "little")
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return mixed % partitions


GOLDEN_PARTITIONS = {
    b"AAPL": {2: 1, 4: 1, 7: 4, 1024: 461},
    b"MSFT": {2: 0, 4: 0, 7: 3, 1024: 884},
    b"BTCUSDT.spot": {2: 0, 4: 0, 7: 4, 1024: 248},
    b"ABCDEFGHIJKLMNOPQRSTUVWX": {2: 0, 4: 0, 7: 3, 1024: 712},
}


@pytest.mark.parametrize("symbol", GOLDEN_PARTITIONS)
def test_a_symbol_never_moves_to_another_partition(symbol: bytes) -> None:
    for partitions, expected in GOLDEN_PARTITIONS[symbol].items():
        assert partition_of(np.array([symbol], "S24"), partitions).tolist() == [expected]


@given(st.lists(st.binary(max_size=24), min_size=1, max_size=20), st.integers(1, 1024))
def test_a_producer_in_another_language_can_compute_the_partition(symbols: list[bytes], partitions: int) -> None:
    got = partition_of(np.array(symbols, "S24"), partitions)
    assert got.dtype == np.int32
    assert got.tolist() == [partition_by_hand(symbol, partitions) for symbol in symbols]


def test_the_partition_does_not_depend_on_how_the_array_lies_in_memory() -> None:
    ticks = np.zeros(300, TICK)
    ticks["symbol"] = [f"SYM{number}".encode() for number in range(300)]
    together = partition_of(ticks["symbol"], 8)
    assert partition_of(np.array(ticks["symbol"]), 8).tolist() == together.tolist()
    assert partition_of(ticks["symbol"][::-1], 8).tolist() == together[::-1].tolist()
    assert partition_of(ticks["symbol"][::3], 8).tolist() == together[::3].tolist()
    assert [int(partition_of(ticks["symbol"][i : i + 1], 8)[0]) for i in range(300)] == together.tolist()
    assert partition_of(ticks["symbol"][:0], 8).tolist() == []


@pytest.mark.parametrize("partitions", [2, 3, 4, 8, 12, 64])
def test_symbols_of_every_fashion_spread_over_the_partitions(partitions: int) -> None:
    fashions = (
        [f"SYM{number:05d}" for number in range(6400)],
        [f"{left}{right}USDT.spot" for left in range(80) for right in range(80)],
        [f"SPY   261120C{strike:08d}" for strike in range(0, 6_400_000, 1000)],
    )
    for symbols in fashions:
        counts = np.bincount(partition_of(np.array(symbols, "S24"), partitions), minlength=partitions)
        expected = len(symbols) / partitions
        # Six standard deviations of a fair draw.
        assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_a_symbol_takes_whole_words() -> None:
    assert SYMBOL_BYTES % 8 == 0


@pytest.mark.parametrize("lengths", [[3], [1, 4, 2], [2, 0, 5]])
def test_joined_records_are_those_of_the_parts_in_order(lengths: list[int]) -> None:
    whole = empty_ticks(sum(lengths))
    whole["source_seq"] = np.arange(len(whole))
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    joined = join_records(parts)
    assert joined.dtype == TICK
    assert joined.tobytes() == whole.tobytes()
