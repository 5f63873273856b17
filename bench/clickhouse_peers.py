"""Other ways to insert predictions into ClickHouse: each takes batches of ``PREDICTION`` records, as we do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import numpy as np

from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import PREDICTION, Records

Insert = Callable[[Records], Awaitable[None]]
Peer = Callable[[EmbeddedClickHouse, str], AbstractAsyncContextManager[Insert]]

_TIMES: Final = ("event", "recv", "consumed", "features", "inferred", "published")
_NUMBERS: Final = tuple(
    name for name in PREDICTION.names or () if name not in ("symbol", *(f"{time}_ns" for time in _TIMES))
)
_COLUMNS: Final = ("symbol", *_NUMBERS, *(f"{name}_time" for name in _TIMES), "epoch")
_STATEMENT: Final = f"INSERT INTO predictions ({', '.join(_COLUMNS)}) VALUES"


def _arrays(rows: Records) -> list[Any]:
    numbers = [np.ascontiguousarray(rows[name]) for name in _NUMBERS]
    times = [np.ascontiguousarray(rows[f"{name}_ns"]).view("datetime64[ns]") for name in _TIMES]
    return [rows["symbol"].astype("U"), *numbers, *times, np.full(len(rows), "bench")]


def _tuples(rows: Records) -> list[tuple[Any, ...]]:
    # DateTime64(9) as a number of ns: with datetime objects it would lose three digits and take twice as long.
    columns = [
        rows["symbol"].astype("U"),
        *(rows[name] for name in _NUMBERS),
        *(rows[f"{name}_ns"] for name in _TIMES),
    ]
    return list(zip(*(column.tolist() for column in columns), ["bench"] * len(rows), strict=True))


@asynccontextmanager
async def driver_rows(server: EmbeddedClickHouse, database: str) -> AsyncIterator[Insert]:
    """clickhouse-driver with a tuple for each row."""
    from clickhouse_driver import Client

    client = Client("127.0.0.1", port=server.port, database=database)

    async def insert(rows: Records) -> None:
        await asyncio.to_thread(client.execute, _STATEMENT, _tuples(rows))

    yield insert
    client.disconnect()


@asynccontextmanager
async def driver_numpy(server: EmbeddedClickHouse, database: str) -> AsyncIterator[Insert]:
    """clickhouse-driver with a numpy array for each column."""
    from clickhouse_driver import Client

    client = Client("127.0.0.1", port=server.port, database=database, settings={"use_numpy": True})

    async def insert(rows: Records) -> None:
        await asyncio.to_thread(client.execute, _STATEMENT, _arrays(rows), columnar=True)

    yield insert
    client.disconnect()


@asynccontextmanager
async def connect_arrow(server: EmbeddedClickHouse, database: str) -> AsyncIterator[Insert]:
    """clickhouse-connect with an Arrow table, over HTTP."""
    import clickhouse_connect
    import pyarrow as pa

    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.http_port, database=database)

    def work(rows: Records) -> None:
        symbols = pa.array(rows["symbol"].astype("U")).dictionary_encode()
        epochs = pa.array(np.full(len(rows), "bench")).dictionary_encode()
        arrays = [symbols, *map(pa.array, _arrays(rows)[1:-1]), epochs]
        client.insert_arrow("predictions", pa.Table.from_arrays(arrays, list(_COLUMNS)))

    async def insert(rows: Records) -> None:
        await asyncio.to_thread(work, rows)

    yield insert
    client.close()


@asynccontextmanager
async def asynch_rows(server: EmbeddedClickHouse, database: str) -> AsyncIterator[Insert]:
    """asynch with a tuple for each row."""
    from asynch.connection import Connection

    async with Connection(host="127.0.0.1", port=server.port, database=database) as connection:

        async def insert(rows: Records) -> None:
            async with connection.cursor() as cursor:
                await cursor.execute(_STATEMENT, _tuples(rows))

        yield insert


PEERS: Final[dict[str, Peer]] = {
    "driver_rows": driver_rows,
    "driver_numpy": driver_numpy,
    "connect_arrow": connect_arrow,
    "asynch_rows": asynch_rows,
}
