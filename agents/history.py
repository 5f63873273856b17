"""The features of history: recorded ticks through the kernel that serves live, for training and for audit.

There is no second implementation that could drift, and no second loop: `models/dataset.py` makes its training data
with `roll`, and ``tickloom replay --features`` writes what it gives to a file.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agents import features
from agents.validate import OUTCOMES
from agents.windows import Step, Windows
from stream.errors import SinkUnavailable
from stream.records import TICK, Records

# A recording has no clock that its ticks could be ahead of.
ANY_FUTURE_NS: Final = 1 << 62
_CALL_TICKS: Final = 65_536  # results do not depend on it
_METADATA_KEY: Final = b"tickloom"


def roll(ticks: Records | Iterable[Records], windows: Windows) -> Iterator[tuple[Records, Step]]:
    """Yield ``TICK[N]`` chunks with what the windows made of them. A step is overwritten by the next one.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks of any size.
        windows: empty ones; afterwards they hold the state at the end of the recording.

    Raises:
        TypeError: not ticks.
        InvariantError: a feature is not finite.
    """
    for call, chunk in enumerate(_chunks(ticks)):
        yield chunk, windows.step(chunk, np.full(len(chunk), call, np.int64))


def write_features(
    ticks: Iterable[Records], windows: Windows, out: Path, origin: dict[str, Any], told: Callable[[int], None]
) -> dict[str, int]:
    """Write a row for each accepted tick to a Parquet file, chunk by chunk; return the ticks by outcome.

    The file has symbol, seq, event_ns, ref_price, feature_hash, as the predictions have them, whether both sides of
    the book were known (``has_book``), and a float32 column for each feature. Its schema's metadata tells under
    ``tickloom``, as JSON, the version and the periods. It appears under its name only once it is whole.

    Args:
        ticks: ``TICK[N]`` chunks in order of arrival.
        windows: empty ones.
        out: the file; one that is there already is replaced.
        origin: what else the metadata shall tell: settings that matter, and where the ticks come from.
        told: called with the number of ticks done since its last call.

    Raises:
        SinkUnavailable: the file cannot be written.
        InvariantError: a feature is not finite.
    """
    schema = _schema(windows, origin)
    part = out.with_name(out.name + ".part")
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for chunk, step in roll(ticks, windows):
                writer.write_table(_table(chunk, step, schema))
                told(len(chunk))
        part.replace(out)
    except OSError as error:
        raise SinkUnavailable(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return {name: int(windows.outcomes[number]) for number, name in OUTCOMES.items() if windows.outcomes[number]}


def _schema(windows: Windows, origin: dict[str, Any]) -> Any:
    tells = {
        "version": metadata.version("tickloom"),
        "periods": windows.periods.plain(),
        "periods_id": f"{windows.periods.id:016x}",
        **origin,
    }
    columns = [
        ("symbol", pa.dictionary(pa.int32(), pa.string())),
        ("seq", pa.uint64()),
        ("event_ns", pa.int64()),
        ("ref_price", pa.float64()),
        ("feature_hash", pa.uint64()),
        ("has_book", pa.bool_()),
        *((name, pa.float32()) for name in features.names(windows.periods)),
    ]
    return pa.schema(columns, metadata={_METADATA_KEY: json.dumps(tells).encode()})


def _table(chunk: Records, step: Step, schema: Any) -> Any:
    symbols, codes = np.unique(chunk["symbol"][step.index], return_inverse=True)
    names = pa.array([symbol.decode("ascii") for symbol in symbols], pa.string())
    columns: list[NDArray[Any]] = [step.seq, chunk["event_ns"][step.index], step.ref, step.feature_hash]
    columns.append(~np.isnan(step.spread_bps))
    columns += list(np.ascontiguousarray(step.features.T))
    symbol = pa.DictionaryArray.from_arrays(codes.astype(np.int32), names)
    # Copied by Arrow: the step is overwritten by the next one.
    return pa.Table.from_arrays(
        [symbol, *(pa.array(np.ascontiguousarray(each)) for each in columns)], schema=schema
    )


def _chunks(ticks: Records | Iterable[Records]) -> Iterator[Records]:
    if isinstance(ticks, np.ndarray):
        ticks = (ticks,)
    for chunk in ticks:
        if chunk.dtype != TICK:
            raise TypeError(f"history is made of TICK records, not of {chunk.dtype}")
        for start in range(0, len(chunk), _CALL_TICKS):
            yield chunk[start : start + _CALL_TICKS]
