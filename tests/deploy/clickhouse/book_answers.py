"""Asking the query book over HTTP, as Grafana does, and comparing its answers with tables computed elsewhere."""

import io
import urllib.parse
import urllib.request
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from exporters.clickhouse.book import query
from stream.embedded.clickhouse import EmbeddedClickHouse

BPS: Final = 1e4


class Ask(Protocol):
    """Answer a query of the book; times are int64 ns since 1970."""

    def __call__(self, name: str, **parameters: Any) -> pd.DataFrame: ...


def asking(server: EmbeddedClickHouse, database: str) -> Ask:
    """Return a way to ask the book about a database."""

    def ask(name: str, **parameters: Any) -> pd.DataFrame:
        # A parameter named `from` is given as from_.
        given = {key.removesuffix("_"): str(value) for key, value in parameters.items()}
        asked = query(name)
        options = {"user": "analyst", "database": database, "default_format": "Parquet"}
        options |= {f"param_{key}": value for key, value in asked.values(given).items()}
        url = f"{server.http_url}/?{urllib.parse.urlencode(options)}"
        try:
            with urllib.request.urlopen(url, asked.sql.encode(), 30) as answer:  # noqa: S310
                found = pq.read_table(io.BytesIO(answer.read())).to_pandas()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{name}: {error.read().decode()}") from None
        assert list(found.columns) == [column.name for column in asked.columns], name
        for column in found.columns:
            if isinstance(found[column].dtype, pd.DatetimeTZDtype) or found[column].dtype.kind == "M":
                found[column] = found[column].dt.as_unit("ns").astype(np.int64)
            elif len(found) and isinstance(found[column].iloc[0], bytes):
                found[column] = found[column].str.decode("ascii")
        return found

    return ask


def same(found: pd.DataFrame, expected: pd.DataFrame, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    """Fail where the columns of ``expected`` are not those of ``found``, within rounding."""
    assert len(expected) > 0, "nothing was expected: the test proves nothing"
    pd.testing.assert_frame_equal(
        found[list(expected.columns)].reset_index(drop=True),
        expected.reset_index(drop=True),
        check_dtype=False,
        check_column_type=False,
        check_index_type=False,
        rtol=rtol,
        atol=atol,
    )


def frame(rows: Any) -> pd.DataFrame:
    """Return records as a table, symbols as text, in their order; ``place`` is that order."""
    names = [name for name in rows.dtype.names or () if name != "symbol"]
    table = pd.DataFrame({name: np.ascontiguousarray(rows[name]) for name in names})
    table["symbol"] = rows["symbol"].astype("U")
    table["place"] = np.arange(len(rows))
    return table


def start_of(event_ns: Any, length_ns: int) -> Any:
    """Return when the interval of each time began."""
    return event_ns // length_ns * length_ns
