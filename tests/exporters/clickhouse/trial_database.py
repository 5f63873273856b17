"""What the tests of ClickHouse share: a database of a test's own, and somebody who knows ticks by heart."""

from contextlib import closing
from typing import Any

import numpy as np
from clickhouse_driver import Client
from clickhouse_driver.util.helpers import parse_url

from exporters.batch import Batch
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import Records, empty_ticks

DAY_NS = 24 * 3600 * 1_000_000_000


class KnownTicks:
    """Finds the ticks of predictions among some that it was told, by the place where they stand."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, int, int], np.void] = {}

    def tell(self, predictions: Records, ticks: Records) -> None:
        """Remember the ``TICK[N]`` of ``PREDICTION[N]``."""
        self._ticks |= {_place(row): tick for row, tick in zip(predictions, ticks, strict=True)}

    async def find(self, rows: Records) -> Records:
        found = empty_ticks(len(rows))
        for index, row in enumerate(rows):
            if _place(row) in self._ticks:
                found[index] = self._ticks[_place(row)]
        return found

    async def close(self) -> None:
        """Nothing is open."""


def _place(row: np.void) -> tuple[int, int, int]:
    return int(row["source_partition"]), int(row["source_offset"]), int(row["source_index"])


def batch_of(rows: Records) -> Batch:
    return Batch(rows, ((0, 1, 2),), "one")


def url_of(server: EmbeddedClickHouse, database: str) -> str:
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def ask(url: str, query: str) -> list[Any]:
    host, options = parse_url(url)
    client = Client(host, **options)
    with closing(_Closing(client)):
        return list(client.execute(query))


class _Closing:
    def __init__(self, client: Client) -> None:
        self.close = client.disconnect
