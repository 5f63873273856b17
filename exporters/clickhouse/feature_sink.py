"""The sink of feature rows: a column of the table for each name that a feature ever had."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from aiokafka.errors import KafkaError
from clickhouse_driver import Client

from agents.features import Feature
from exporters.batch import Batch
from exporters.clickhouse.rows import feature_table
from exporters.clickhouse.sink import ClickHouseSink, insert_rows, put_aside_rows
from exporters.known_names import KnownNames
from stream.errors import SinkUnavailable

_TABLE: Final = "features"
_HAS: Final = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'features'"
_VIEW: Final = "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = 'v_features'"
_NAMED: Final = "SELECT count() FROM feature_names FINAL WHERE names_id = %(names_id)s"
_NAME: Final = "INSERT INTO feature_names (names_id, position, name, unit, formula) VALUES"


class FeatureSink(ClickHouseSink):
    """Writes rows of features, and makes room for names that the table does not have."""

    def __init__(self, url: str, bootstrap: str) -> None:
        """Make the sink; it connects when it is first used.

        Args:
            url: as `ClickHouseSink`.
            bootstrap: address of Kafka, where the names are.

        Raises:
            SettingsError: not such a URL.
        """
        super().__init__(url)
        self._names = KnownNames(bootstrap)
        self._made: set[int] = set()  # names that the table has

    async def write(self, batch: Batch) -> None:
        """Insert the rows.

        Raises:
            SinkUnavailable: the server or Kafka is away, full, slow, or not as it should be; some may be there.
            SinkRejected: the table will not take these rows.
        """
        ids = set(batch.rows["names_id"].tolist())
        try:
            missing = await self._names.learn(ids)
        except KafkaError as error:
            raise SinkUnavailable(f"Kafka does not tell what features are called: {error!r}") from error
        if missing:
            told = ", ".join(f"{names_id:016x}" for names_id in sorted(missing))
            raise SinkUnavailable(
                f"nobody has told what the features of names_id {told} are called; a worker with their periods "
                "tells it when it starts with features_every_ms set"
            )
        try:
            await self._server.run(partial(self._insert, batch, ids))
        except SinkUnavailable:
            self._made.clear()  # it may be another table next time
            raise

    async def put_aside(self, batch: Batch, reason: str) -> None:
        """Keep rows that the table will not take in ``dead_letters``, with the reason.

        Raises:
            SinkUnavailable: as `write`.
            SinkRejected: not even there.
        """
        await self._server.run(lambda client: put_aside_rows(client, batch, _TABLE, reason))

    def _insert(self, batch: Batch, ids: set[int], client: Client) -> None:
        for names_id in sorted(ids):
            catalogue = self._names.known[names_id]
            if names_id not in self._made:
                _make_room(client, names_id, catalogue)
                self._made.add(names_id)
            rows = batch.rows[batch.rows["names_id"] == names_id]
            table = feature_table([feature.name for feature in catalogue])
            insert_rows(client, replace(batch, rows=rows), rows, table)


def _make_room(client: Client, names_id: int, catalogue: Sequence[Feature]) -> None:
    """Add the columns that the table does not have, and note what they are. Doing it twice does no harm."""
    has = {name for (name,) in client.execute(_HAS)}
    fresh = [feature.name for feature in catalogue if feature.name not in has]
    if fresh:
        adding = (f"ADD COLUMN IF NOT EXISTS `{name}` Float32 DEFAULT nan CODEC(Delta, ZSTD(1))" for name in fresh)
        client.execute(f"ALTER TABLE {_TABLE} {', '.join(adding)}")
        # A view has the columns that there were when it was made.
        [(query,)] = client.execute(_VIEW)
        client.execute(f"CREATE OR REPLACE VIEW v_features AS {query}")
    if client.execute(_NAMED, {"names_id": names_id}) != [(len(catalogue),)]:
        client.execute(
            _NAME, [(names_id, at, each.name, each.unit, each.formula) for at, each in enumerate(catalogue)]
        )
