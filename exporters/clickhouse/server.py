"""One connection to a ClickHouse server, in a thread of its own, and what its errors mean.

clickhouse-driver is synchronous and not thread-safe, so one thread of our own owns the one client.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from clickhouse_driver import Client, errors
from clickhouse_driver.util.helpers import parse_url

from exporters.clickhouse.schema import migrate
from stream.errors import SettingsError, SinkError, SinkRejected, SinkUnavailable

T = TypeVar("T")

_PATIENCE: Final = {"connect_timeout": 5, "send_receive_timeout": 10, "sync_request_timeout": 5}  # s
_SETTINGS: Final = {
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


class Server:
    """A ClickHouse server. Its tables are made when it is first reached, and are not there."""

    def __init__(self, url: str) -> None:
        """Make it; it connects when it is first used.

        Args:
            url: ``clickhouse[s]://USER:PASSWORD@HOST:PORT/DATABASE``; the options of clickhouse-driver may follow.

        Raises:
            SettingsError: not such a URL.
        """
        try:
            self._host, self._options = parse_url(url)
        except ValueError as error:
            raise SettingsError(f"setting 'clickhouse' is not a ClickHouse URL: {error}") from None
        self._where = f"ClickHouse at {self._host}:{self._options.get('port', 9000)}"
        self._settings = _SETTINGS | self._options.pop("settings", {})
        self._options = _PATIENCE | self._options
        self._executor = ThreadPoolExecutor(1, "clickhouse")
        self._client: Client | None = None

    async def run(self, work: Callable[[Client], T]) -> T:
        """Do some work with the connection, in its thread; return what the work returns.

        Raises:
            SinkUnavailable: the server is away, full, slow, or not as it should be; part of it may be done.
            SinkRejected: it will not take these rows.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.do, work)

    def do(self, work: Callable[[Client], T]) -> T:
        """Do some work here and now, where no loop runs.

        Raises:
            SinkUnavailable, SinkRejected: as `run`.
        """
        try:
            return work(self._connected())
        except errors.ServerException as error:
            if error.code in _SCHEMA_CODES:
                self.disconnect()  # the next attempt makes the tables
            raise self._refusal(error) from error
        except (errors.Error, EOFError, OSError) as error:
            self.disconnect()
            raise SinkUnavailable(self._explain(error)) from error

    async def close(self) -> None:
        """Close the connection. Work that is still waiting for a frozen server is left to its timeout."""
        self._executor.submit(self.disconnect)
        self._executor.shutdown(wait=False)

    def disconnect(self) -> None:
        """Close the connection of `do`; the next work opens another."""
        if self._client is not None:
            with contextlib.suppress(errors.Error, EOFError, OSError):
                self._client.disconnect()
            self._client = None

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


def quiet_driver() -> None:
    """Keep the driver from logging a traceback each time that it cannot connect: we say it once, in words."""
    logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)
