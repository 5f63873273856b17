"""ClickHouse: every row of our topics that an analyst may ask for.

Repeating is harmless twice over. A batch that is tried again carries the same ``insert_deduplication_token``, and
the server drops it. Rows that a restarted exporter reads again are cut into other batches; the table replaces rows
of the same key, and its view shows each once.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from clickhouse_driver import Client

from exporters.batch import Batch
from exporters.clickhouse.native import insert
from exporters.clickhouse.rows import TABLES, Table, epoch_number
from exporters.clickhouse.server import Server
from stream.records import Records

_DAY_NS: Final = 24 * 3600 * 1_000_000_000
_DAYS_AN_INSERT: Final = 100  # the server's default limit of partitions for an insert; a part costs it about 3 ms
_DEAD_LETTER: Final = "INSERT INTO dead_letters (at_time, table_name, reason, record, raw, epoch) VALUES"


class ClickHouseSink:
    """Writes batches to one ClickHouse server, and makes the tables there when they are not."""

    def __init__(self, url: str) -> None:
        """Make the sink; it connects when it is first used.

        Args:
            url: ``clickhouse[s]://USER:PASSWORD@HOST:PORT/DATABASE``; the options of clickhouse-driver may follow.

        Raises:
            SettingsError: not such a URL.
        """
        self.name = "clickhouse"
        self._server = Server(url)

    async def write(self, batch: Batch) -> None:
        """Insert the rows.

        Raises:
            SinkUnavailable: the server is away, full, slow, or not as it should be; some rows may be there.
            SinkRejected: it will not take these rows.
        """
        await self._server.run(lambda client: insert_rows(client, batch, batch.rows))

    async def settle(self) -> None:
        """Nothing follows from these rows."""

    async def put_aside(self, batch: Batch, reason: str) -> None:
        """Keep rows that their table will not take in ``dead_letters``, with the reason.

        Raises:
            SinkUnavailable: as `write`.
            SinkRejected: not even there.
        """
        await self._server.run(lambda client: put_aside_rows(client, batch, TABLES[batch.rows.dtype].name, reason))

    async def check(self) -> None:
        """Ask whether the server answers, with its tables in place.

        Raises:
            SinkUnavailable: it does not.
        """
        await self._server.run(lambda client: client.execute("SELECT 1"))

    async def close(self) -> None:
        """Close the connection. An insert that is still waiting for a frozen server is left to its timeout."""
        await self._server.close()


def insert_rows(client: Client, batch: Batch, rows: Records, table: Table | None = None) -> None:
    """Insert rows that stand for those of a batch, under its token; into the table of their record, or another."""
    table, token = TABLES[rows.dtype] if table is None else table, batch.token()
    number = epoch_number(client, batch.epoch) if table.is_ranked else 0
    for part, some in enumerate(_by_days(rows, table)):
        settings = {"insert_deduplication_token": f"{token} {part}", "insert_deduplicate": 1}
        insert(client, table.name, table.columns(some, batch.epoch, number), len(some), settings)


def _by_days(rows: Records, table: Table) -> Iterator[Records]:
    """Cut rows so that each insert meets a bounded number of partitions: old bars span thousands of days."""
    if table.partitioned_by is None:
        yield rows
        return
    days = table.partitioned_by(rows) // _DAY_NS
    different = np.unique(days)
    if len(different) <= _DAYS_AN_INSERT:
        yield rows
        return
    for start in range(0, len(different), _DAYS_AN_INSERT):
        chosen = different[start : start + _DAYS_AN_INSERT]
        yield rows[(days >= chosen[0]) & (days <= chosen[-1])]


def put_aside_rows(client: Client, batch: Batch, name: str, reason: str) -> None:
    """Write rows that the table ``name`` will not take into ``dead_letters``."""
    now_s = int(time.time())
    letters = [
        (now_s, name, reason, json.dumps(_plain(row), allow_nan=True), row.tobytes().hex(), batch.epoch)
        for row in batch.rows
    ]
    client.execute(_DEAD_LETTER, letters, settings={"insert_deduplication_token": batch.token()})


def _plain(value: Any) -> Any:
    """A record as named values that JSON has."""
    if isinstance(value, np.void):
        return {name: _plain(value[name]) for name in value.dtype.names or ()}
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    return value.tolist() if isinstance(value, np.ndarray) else value.item()
