"""A state row is its own bytes; a row that we do not know is refused, loudly."""

from typing import Any

import numpy as np
import pytest
from markets import FUTURE_NS, LATENESS_NS, Feed, random_market

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from agents.periods import RING, Periods
from agents.state import RECENT_ROWS, STATE, STATE_VERSION, decode_state, encode_state
from agents.state_reader import describe_state
from agents.windows import Windows
from stream.errors import UnknownVersion

# Rows of this version are in changelogs: append a field and raise STATE_VERSION instead of changing one.
LAYOUT = (
    "version <u8 0, symbol S24 8, seq <u8 32, offset <i8 40, model_id <u8 48, source_seq <u8 56, stream_id <u8 "
    "64, rejected <u8 72, duplicates <u8 80, source_ns <i8 88, odd_seq <u8 96, odd_ticks <u8 104, level <f8 112, "
    "level_scale <f8 120, outlier_level <f8 128, outlier_ticks <u8 136, halt_ns <i8 144, resume_ns <i8 152, "
    "rejects 32<u4 160, marks 8<u4 288, event_ns <i8 320, trade_ns <i8 328, ref <f8 336, bid <f8 344, ask <f8 "
    "352, bid_size <f8 360, ask_size <f8 368, last_price <f8 376, last_side <f8 384, ema_12 <f8 392, ema_26 <f8 "
    "400, macd_signal <f8 408, gain <f8 416, loss <f8 424, flow <f8 432, depth <f8 440, signed_size <f8 448, size "
    "<f8 456, gap_s <f8 464, refs 64<f8 472, returns 64<f8 984, h 128<f4 1496, c 128<f4 2008, recent 64x80<f4 "
    "2520, periods_id <u8 23000, session_seq <u8 23008, bid_ns <i8 23016, ask_ns <i8 23024, channel_high <f8 "
    "23032, channel_low <f8 23040, high_at <i8 23048, low_at <i8 23056, windows 4(slot <i8 0, kept <i8 8, closed "
    "(ticks <f8 0, refs <f8 8, squares <f8 16, notional <f8 24, size <f8 32, signed_size <f8 40, flow <f8 48, "
    "depth <f8 56, quotes <f8 64, high <f8 72, low <f8 80, start_ref <f8 88, end_ns <i8 96) 16, ring 10(ticks <f8 "
    "0, refs <f8 8, squares <f8 16, notional <f8 24, size <f8 32, signed_size <f8 40, flow <f8 48, depth <f8 56, "
    "quotes <f8 64, high <f8 72, low <f8 80, start_ref <f8 88, end_ns <i8 96) 120) 23064, bars 2(end_ns <i8 0, "
    "prices <i8 8, open <f8 16, high <f8 24, low <f8 32, close <f8 40, volume <f8 48, bars <i8 56, ema_fast <f8 "
    "64, ema_slow <f8 72, macd_signal <f8 80, gain <f8 88, loss <f8 96, true_range <f8 104, features 12<f8 112, "
    "closes 64<f8 208, highs 64<f8 720, lows 64<f8 1232, returns 64<f8 1744) 27704"
)
SINCE_VERSION_3 = ", model_steps <u8 32216"


def layout(dtype: np.dtype[Any]) -> str:
    told = []
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]
        shape = "x".join(str(size) for size in field.shape)
        what = f"({layout(field.base)})" if field.base.names else field.base.str.strip("|")
        told.append(f"{name} {shape}{what} {offset}")
    return ", ".join(told)


def test_a_row_of_a_version_never_changes_its_layout() -> None:
    assert layout(STATE) == LAYOUT + SINCE_VERSION_3
    assert STATE.itemsize == 32_224
    assert STATE_VERSION == 3


def test_a_row_of_version_2_is_widened() -> None:
    old = np.random.default_rng(1).bytes(32_216)
    old = (2).to_bytes(8, "little") + b"AIG".ljust(24, b"\0") + (1234).to_bytes(8, "little") + old[40:]
    row = decode_state(old)
    assert row["version"] == STATE_VERSION
    assert row["symbol"] == b"AIG"
    assert row["model_steps"] == row["seq"] == 1234
    assert encode_state(row)[8:32_216] == old[8:]
    assert decode_state(encode_state(row)).tobytes() == row.tobytes()


def test_half_a_row_of_version_2_is_refused() -> None:
    with pytest.raises(UnknownVersion, match="version 2 with 32208 bytes"):
        decode_state((2).to_bytes(8, "little").ljust(32_208, b"\0"))


def test_a_row_is_whole_words_and_has_room_for_a_window_and_a_model() -> None:
    assert STATE.itemsize % 8 == 0
    assert RING & (RING - 1) == 0
    assert STATE["recent"].shape == (RECENT_ROWS, features.COUNT)
    assert STATE["h"].shape == STATE["c"].shape == (MODEL_STATE_FLOATS,)


def test_a_row_survives_as_bytes() -> None:
    windows = Windows(LATENESS_NS, FUTURE_NS, 8)
    ticks = random_market(np.random.default_rng(1), 300)
    windows.step(ticks, np.zeros(300, np.int64))
    for row in windows.states[: windows.count]:
        raw = encode_state(row)
        assert len(raw) == STATE.itemsize
        assert decode_state(raw).tobytes() == raw
        assert decode_state(raw)["seq"][0] == row["seq"]


def test_a_row_is_told_with_the_names_of_its_own_periods_only() -> None:
    windows = Windows(
        LATENESS_NS, FUTURE_NS, 8, periods=Periods(tick_rsi=21, bars_s=(5.0, 60.0)), outlier_bps=np.inf
    )
    feed = Feed()
    windows.step(np.concatenate([feed.trade("X", 10.0, 2.0), feed.trade("X", 11.0, 3.0)]), np.zeros(2, np.int64))
    told = describe_state(windows.states[:1], windows.periods)
    assert told["features"]["rsi_21"] == 100.0
    bar = {"open": 10.0, "high": 11.0, "low": 10.0, "close": 11.0, "volume": 5.0, "bars": 0}
    assert told["bar_5s"] == told["bar_60s"] == bar
    other = describe_state(windows.states[:1])
    assert list(other["features"]) == [str(place) for place in range(80)]
    assert other["bar_0"] == bar
    assert told["periods_id"] == other["periods_id"] == f"{windows.periods.id:016x}"


@pytest.mark.parametrize("version", [0, 1, 2, 4, 2**64 - 1])
def test_a_row_of_another_version_is_refused(version: int) -> None:
    row = np.zeros(1, STATE)
    row["version"] = version
    with pytest.raises(UnknownVersion, match=f"version {version} with {STATE.itemsize} bytes; this tickloom reads"):
        decode_state(row.tobytes())


def test_a_row_of_another_length_is_refused() -> None:
    row = np.zeros(1, STATE)
    row["version"] = STATE_VERSION
    for raw in (row.tobytes()[:-8], row.tobytes() + bytes(8), row.tobytes()[:8], b"", b"\x01"):
        with pytest.raises(UnknownVersion, match=f"with {len(raw)} bytes"):
            decode_state(raw)
