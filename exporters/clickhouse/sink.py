"""ClickHouse: every prediction as a row, with every time stamp, what came of it, and what happened to models.

Analysts ask the views ``v_predictions``, ``v_outcomes``, ``model_scores`` and ``v_model_events``.

Repeating is harmless twice over. A batch that is tried again carries the same ``insert_deduplication_token``, and
the server drops it. Rows that a restarted exporter reads again are cut into other batches; the table replaces rows
of the same key, and the view shows each once.

clickhouse-driver is synchronous and not thread-safe, so one thread of our own owns the one client.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
from clickhouse_driver import Client, errors
from clickhouse_driver.util.helpers import parse_url

from exporters.batch import Batch
from exporters.clickhouse.rows import TABLES, Table
from exporters.clickhouse.schema import migrate
from exporters.intake import PLACED_TICK, TickIntake
from exporters.process import OnReady, SideFlow, run_sink
from stream.errors import SettingsError, SinkError, SinkRejected, SinkUnavailable
from stream.records import MODEL_EVENT, OUTCOME, REJECTED, Records
from stream.settings import Settings
from stream.topics import MODEL_EVENTS, OUTCOMES, REJECTED_TICKS, TICKS

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SIDE_FLOWS: Final = (
    SideFlow(TICKS, PLACED_TICK, "ticks", TickIntake),
    SideFlow(REJECTED_TICKS, REJECTED, "rejected"),
    SideFlow(OUTCOMES, OUTCOME, "outcomes"),
    SideFlow(MODEL_EVENTS, MODEL_EVENT, "model_events"),
)

_PATIENCE: Final = {"connect_timeout": 5, "send_receive_timeout": 10, "sync_request_timeout": 5}  # s
_SETTINGS: Final = {
    "use_numpy": True,
    "async_insert": 0,  # an acknowledgement must mean written
    "network_compression_method": "LZ4",  # servers answer in zstd otherwise, if the URL asks to compress
}

# What the data itself can cause. Everything else (a table that was dropped, a full disk, too many parts, a right
# that was taken away) is somebody's to put right; Kafka keeps the rows meanwhile, so waiting loses nothing.
REJECTED_CODES: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
    }
)
_SCHEMA_CODES: Final = frozenset({16, 60, 81})  # NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_TABLE, UNKNOWN_DATABASE
_ACCESS_DENIED: Final = 497
_DAY_NS: Final = 24 * 3600 * 1_000_000_000
_DAYS_AN_INSERT: Final = 100  # the server's default limit of partitions for an insert; a part costs it about 3 ms


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
        try:
            self._host, self._options = parse_url(url)
        except ValueError as error:
            raise SettingsError(f"setting 'clickhouse' is not a ClickHouse URL: {error}") from None
        self._where = f"ClickHouse at {self._host}:{self._options.get('port', 9000)}"
        self._settings = _SETTINGS | self._options.pop("settings", {})
        self._options = _PATIENCE | self._options
        self._executor = ThreadPoolExecutor(1, "clickhouse")
        self._client: Client | None = None

    async def write(self, batch: Batch) -> None:
        """Insert the rows.

        Raises:
            SinkUnavailable: the server is away, full, slow, or not as it should be; some rows may be there.
            SinkRejected: it will not take these rows.
        """
        await self._in_thread(lambda client: _insert(client, batch))

    async def check(self) -> None:
        """Ask whether the server answers, with its tables in place.

        Raises:
            SinkUnavailable: it does not.
        """
        await self._in_thread(lambda client: client.execute("SELECT 1"))

    async def close(self) -> None:
        """Close the connection. An insert that is still waiting for a frozen server is left to its timeout."""
        self._executor.submit(self._disconnect)
        self._executor.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[Client], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._attempt, work)

    def _attempt(self, work: Callable[[Client], T]) -> T:
        fresh = self._client is None
        try:
            client = self._connected()
            try:
                return work(client)
            except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
                # The driver could not put a value into its column, or lost its way. A new connection tells which.
                self._disconnect()
                if fresh:
                    raise SinkRejected(f"clickhouse-driver cannot send these rows: {error!r}") from error
            return self._attempt(work)
        except errors.ServerException as error:
            if error.code in _SCHEMA_CODES:
                self._disconnect()  # the next attempt makes the tables
            raise self._refusal(error) from error
        except (errors.Error, EOFError, OSError) as error:
            self._disconnect()
            raise SinkUnavailable(self._explain(error)) from error

    def _connected(self) -> Client:
        if self._client is None:
            client = self._make_client()
            try:
                self._ensure_database()
                migrate(client)
            except BaseException:
                client.disconnect()
                raise
            self._client = client
        return self._client

    def _make_client(self, **changes: Any) -> Client:
        return Client(self._host, settings=self._settings, **(self._options | changes))

    def _ensure_database(self) -> None:
        database = self._options.get("database") or "default"
        if database == "default":
            return
        client = self._make_client(database="default")
        try:
            client.execute(f"CREATE DATABASE IF NOT EXISTS `{database.replace('`', '``')}`")
        except errors.ServerException as error:
            if error.code != _ACCESS_DENIED:  # it may be there all the same, made by somebody who is allowed to
                raise
        finally:
            client.disconnect()

    def _disconnect(self) -> None:
        if self._client is not None:
            with contextlib.suppress(errors.Error, EOFError, OSError):
                self._client.disconnect()
            self._client = None

    def _refusal(self, error: errors.ServerException) -> SinkError:
        message = str(error.message).split("Stack trace:")[0].removeprefix("DB::Exception: ").strip()
        message = message.splitlines()[0][:300]
        if error.code in REJECTED_CODES:
            return SinkRejected(f"{self._where}: {message} (code {error.code})")
        return SinkUnavailable(f"{self._where} refuses our batch: {message} (code {error.code})")

    def _explain(self, error: Exception) -> str:
        if isinstance(error, TimeoutError | errors.SocketTimeoutError):
            return f"{self._where} does not answer within {self._options['send_receive_timeout']} s"
        if isinstance(error, EOFError | ConnectionError | errors.NetworkError):
            return f"{self._where} cannot be reached: {str(error) or 'it closed the connection'}"
        return f"{self._where}: {error!r}"


def _insert(client: Client, batch: Batch) -> None:
    table, token = TABLES[batch.rows.dtype], batch.token()
    for number, rows in enumerate(_by_days(batch.rows, table)):
        settings = {"insert_deduplication_token": f"{token} {number}", "insert_deduplicate": 1}
        client.execute(table.insert, table.values(rows, batch.epoch), columnar=True, settings=settings)


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


async def run_clickhouse(settings: Settings, stop: asyncio.Event, on_ready: OnReady | None = None) -> None:
    """Export predictions, outcomes and events of models to ClickHouse until ``stop`` is set; then drain and commit.

    Args:
        settings: ``kafka`` and ``clickhouse`` must be set.
        stop: ends it.
        on_ready: told the URL of ``/metrics`` and ``/health``.

    Raises:
        SettingsError: an address is not set.
    """
    if settings.kafka is None or settings.clickhouse is None:
        raise SettingsError("the ClickHouse exporter needs the settings `kafka` and `clickhouse`")
    # The driver logs a traceback each time that it cannot connect; /health and our own log say it once.
    logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)
    sink = ClickHouseSink(settings.clickhouse.get_secret_value())
    rows, age_s = settings.clickhouse_batch_rows, settings.clickhouse_flush_s
    await run_sink(
        settings,
        stop,
        "clickhouse",
        sink,
        max_rows=rows,
        max_age_s=age_s,
        on_ready=on_ready,
        side_flows=_SIDE_FLOWS,
    )
