"""STATE: everything that the engine remembers of one symbol, as one fixed-width row of bytes.

The row is the value of the Faust table ``windows`` and of its changelog: no encoding, no pickle. It follows the
evolution rules of `stream/records.py`; a row of an unknown version stops the lane with a clear error.
"""

from typing import Final

import numpy as np

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from agents.periods import BARS, BUCKETS, RING, WINDOWS
from stream.errors import UnknownVersion
from stream.records import SYMBOL_BYTES, Records

STATE_VERSION: Final = 3
REASONS: Final = 32  # numbers of `Reject`, with room for more
MARK_BITS: Final = 8  # bits of `Mark`, likewise
RECENT_ROWS: Final = 64  # feature rows kept to warm a newly promoted model up
NO_STREAM: Final = 1 << 32  # no tick can have it

# What is added up over a part of a window by event time. An empty one has high = -inf and low = inf.
BUCKET: Final = np.dtype(
    [
        ("ticks", "<f8"),
        ("refs", "<f8"),  # sum of reference prices
        ("squares", "<f8"),  # sum of squared one-tick log returns, in bps
        ("notional", "<f8"),  # sum of price x size of trades
        ("size", "<f8"),
        ("signed_size", "<f8"),
        ("flow", "<f8"),  # sum of Cont's order-flow e_n
        ("depth", "<f8"),
        ("quotes", "<f8"),
        ("high", "<f8"),  # of refs
        ("low", "<f8"),
        ("start_ref", "<f8"),  # the ref that stood when it began
        ("end_ns", "<i8"),  # there are only buckets that have ticks: the one before may have ended long ago
    ]
)
WINDOW: Final = np.dtype(
    [
        ("slot", "<i8"),  # of the open bucket in the ring
        ("kept", "<i8"),  # buckets before it that may still be of the window
        ("closed", BUCKET),  # all others, merged anew whenever one closes
        ("ring", BUCKET, (BUCKETS,)),
    ]
)
BAR: Final = np.dtype(
    [
        ("end_ns", "<i8"),  # of the open bar
        ("prices", "<i8"),  # in the open bar
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        # Indicators as of the last closed bar.
        ("bars", "<i8"),  # closed in this session
        ("ema_fast", "<f8"),
        ("ema_slow", "<f8"),
        ("macd_signal", "<f8"),
        ("gain", "<f8"),
        ("loss", "<f8"),
        ("true_range", "<f8"),
        ("features", "<f8", (features.BAR_FEATURES,)),
        ("closes", "<f8", (RING,)),  # at bars % RING, as the others
        ("highs", "<f8", (RING,)),
        ("lows", "<f8", (RING,)),
        ("returns", "<f8", (RING,)),  # log returns of closes in bps; 0 for the first bar
    ]
)

STATE: Final = np.dtype(
    [
        ("version", "<u8"),
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("seq", "<u8"),  # accepted ticks so far: the seq of the last prediction
        ("offset", "<i8"),  # of the last block of ticks applied; -1 for none
        ("model_id", "<u8"),  # whose state h and c are
        ("source_seq", "<u8"),  # of the last tick whose content was sound, accepted or not
        ("stream_id", "<u8"),  # that it came from; NO_STREAM before the first
        ("rejected", "<u8"),
        ("duplicates", "<u8"),
        # What verdicts depend on, see agents/validate.py.
        ("source_ns", "<i8"),  # newest event time of the ticks that source_seq counts
        ("odd_seq", "<u8"),  # of the last tick refused as BAD_SEQUENCE
        ("odd_ticks", "<u8"),  # such ticks in a row that agree
        ("level", "<f8"),  # last accepted price: of a trade, or the mid of a quote; 0 for none
        ("level_scale", "<f8"),  # mean distance from one to the next, as a share
        ("outlier_level", "<f8"),  # last price refused as OUTLIER
        ("outlier_ticks", "<u8"),  # such ticks in a row that agree
        ("halt_ns", "<i8"),  # event time of the newest halt, 0 for none
        ("resume_ns", "<i8"),
        ("rejects", "<u4", (REASONS,)),  # ticks by number of `Reject`
        ("marks", "<u4", (MARK_BITS,)),  # ticks by bit of `Mark`
        ("event_ns", "<i8"),  # of the newest tick accepted
        ("trade_ns", "<i8"),  # of the newest trade accepted; 0 for none
        # The market as last seen.
        ("ref", "<f8"),
        ("bid", "<f8"),
        ("ask", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
        ("last_price", "<f8"),
        ("last_side", "<f8"),
        # Running values.
        ("ema_12", "<f8"),
        ("ema_26", "<f8"),
        ("macd_signal", "<f8"),
        ("gain", "<f8"),
        ("loss", "<f8"),
        ("flow", "<f8"),  # EMA of Cont's order-flow e_n
        ("depth", "<f8"),
        ("signed_size", "<f8"),
        ("size", "<f8"),
        ("gap_s", "<f8"),  # EMA of the seconds between ticks
        ("refs", "<f8", (RING,)),  # reference prices, at (seq - session_seq) % RING
        ("returns", "<f8", (RING,)),  # one-tick log returns in bps, likewise; 0 for the first tick
        ("h", "<f4", (MODEL_STATE_FLOATS,)),
        ("c", "<f4", (MODEL_STATE_FLOATS,)),
        ("recent", "<f4", (RECENT_ROWS, features.COUNT)),  # feature rows, at seq % RECENT_ROWS
        # Since version 2.
        ("periods_id", "<u8"),  # of the periods that everything here was made with
        ("session_seq", "<u8"),  # seq when the session began: windows hold what came after it
        ("bid_ns", "<i8"),  # when a quote last told the side; 0 for never
        ("ask_ns", "<i8"),
        ("channel_high", "<f8"),  # of the last refs
        ("channel_low", "<f8"),
        ("high_at", "<i8"),  # seq - session_seq of the newest ref that high
        ("low_at", "<i8"),
        ("windows", WINDOW, (WINDOWS,)),
        ("bars", BAR, (BARS,)),
        # Since version 3.
        ("model_steps", "<u8"),  # of the model that h and c are of, since they were zero: warm-up included
    ]
)
_VERSION_2_BYTES: Final = int(STATE.fields["model_steps"][1])  # type: ignore[index]


def decode_state(raw: bytes) -> Records:
    """Return one row, ``STATE[1]``, from the bytes of the table's value. One of version 2 is widened.

    Raises:
        UnknownVersion: a row of another version or size.
    """
    version = int.from_bytes(raw[:8], "little")
    if version == STATE_VERSION - 1 and len(raw) == _VERSION_2_BYTES:
        return _from_version_2(raw)
    if version != STATE_VERSION or len(raw) != STATE.itemsize:
        raise UnknownVersion(
            f"a state row of version {version} with {len(raw)} bytes; this tickloom reads version "
            f"{STATE_VERSION} with {STATE.itemsize} bytes. Run the version that wrote it, or start over with the "
            "ticks that there are: stop all workers and run `tickloom topics --forget-state`"
        )
    return np.frombuffer(raw, STATE, 1)


def _from_version_2(raw: bytes) -> Records:
    row = np.frombuffer(raw.ljust(STATE.itemsize, b"\0"), STATE, 1).copy()
    row["version"] = STATE_VERSION
    row["model_steps"] = row["seq"]  # what was counted then: a swap did not start it anew
    return row


def encode_state(row: Records) -> bytes:
    """Return one row, a ``STATE`` scalar or ``STATE[1]``, as the table's value."""
    return row.tobytes()
