"""STATE: everything that the engine remembers of one symbol, as one fixed-width row of bytes.

The row is the value of the Faust table ``windows`` and of its changelog: no encoding, no pickle. It follows the
evolution rules of `stream/records.py`; a row of an unknown version stops the lane with a clear error.
"""

from typing import Final

import numpy as np

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from stream.errors import UnknownVersion
from stream.records import SYMBOL_BYTES, Records

STATE_VERSION: Final = 1
RING: Final = 64  # the longest count window, in ticks; a power of two
RECENT_ROWS: Final = 64  # feature rows kept to warm a newly promoted model up

STATE: Final = np.dtype(
    [
        ("version", "<u8"),
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("seq", "<u8"),  # accepted ticks so far: the seq of the last prediction
        ("offset", "<i8"),  # of the last block of ticks applied; -1 for none
        ("model_id", "<u8"),  # whose state h and c are
        ("source_seq", "<u8"),  # of the last tick seen, accepted or not
        ("stream_id", "<u8"),
        ("rejected", "<u8"),
        ("duplicates", "<u8"),
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
        ("refs", "<f8", (RING,)),  # reference prices, at seq % RING
        ("returns", "<f8", (RING,)),  # one-tick log returns in bps, likewise; 0 for the first tick
        ("h", "<f4", (MODEL_STATE_FLOATS,)),
        ("c", "<f4", (MODEL_STATE_FLOATS,)),
        ("recent", "<f4", (RECENT_ROWS, features.COUNT)),  # feature rows, at seq % RECENT_ROWS
    ]
)


def decode_state(raw: bytes) -> Records:
    """Return one row, ``STATE[1]``, from the bytes of the table's value.

    Raises:
        UnknownVersion: a row of another version or size.
    """
    version = int.from_bytes(raw[:8], "little")
    if version != STATE_VERSION or len(raw) != STATE.itemsize:
        raise UnknownVersion(
            f"a state row of version {version} with {len(raw)} bytes; this tickloom reads version "
            f"{STATE_VERSION} with {STATE.itemsize} bytes. Run the version that wrote it, or start over with the "
            "ticks that there are: stop all workers and run `tickloom topics --forget-state`"
        )
    return np.frombuffer(raw, STATE, 1)


def encode_state(row: Records) -> bytes:
    """Return one row, a ``STATE`` scalar or ``STATE[1]``, as the table's value."""
    return row.tobytes()
