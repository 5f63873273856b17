"""Small files of ticks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WriteTicks = Callable[..., Path]


@pytest.fixture
def write_ticks(tmp_path: Path) -> WriteTicks:
    """Write a Parquet file of ticks: ``write_ticks("trades_A_20200102.parquet", ts_ns=[...], ...)``."""

    def write(name: str, **columns: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(columns["symbol"], str):
            columns["symbol"] = [columns["symbol"]] * len(columns["ts_ns"])
        pq.write_table(pa.table(columns), path)
        return path

    return write
