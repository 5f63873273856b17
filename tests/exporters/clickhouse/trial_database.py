"""What the tests of ClickHouse share: a database of a test's own, and somebody who knows ticks by heart."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.util.helpers import parse_url

from exporters.batch import Batch
from exporters.clickhouse.source_ticks import ticks_at
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.records import Records

# Of bars, what is the same whoever computed them: the last bit of a sum depends on how rows lay in parts.
BARS = "* REPLACE (round(notional, 5) AS notional, round(vwap, 9) AS vwap)"
DAY_NS = 24 * 3600 * 1_000_000_000


class KnownTicks:
    """Finds the ticks of predictions in blocks that it was given."""

    def __init__(self, blocks: Sequence[tuple[int, Records]] = ()) -> None:
        self._blocks = dict(blocks)

    async def find(self, rows: Records) -> Records:
        return ticks_at(rows, self._blocks)

    async def close(self) -> None:
        """Nothing is open."""


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
