"""Questions to ClickHouse beside the event loop: a few connections, each with a thread while it is asked something.

A question is read only, has its own limits of time, memory and rows on the server, and is taken back when nobody
waits for its answer any more: closing a connection's socket wakes our thread, and makes the server stop the query.
"""

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pyarrow as pa
from clickhouse_driver import Client, errors
from clickhouse_driver.util.helpers import parse_url

from exporters.clickhouse.sparse import mend_sparse_columns
from exporters.rest.problems import BAD_PARAMETER, BUSY, NOT_FOUND, TIMEOUT, TOO_MUCH, UNAVAILABLE, Problem
from stream.errors import SettingsError

logger = logging.getLogger(__name__)
# It warns at each question of each type that it reads by the slower of its two ways.
logging.getLogger("clickhouse_driver.columns.service").setLevel(logging.ERROR)

T = TypeVar("T")

_CONNECT_WITHIN_S: Final = 3
_WAITING_PER_CONNECTION: Final = 16
_LARGEST_ANSWER_ROWS: Final = 1_000_000
_LARGEST_ANSWER_BYTES: Final = 256 << 20
_LARGEST_MEMORY_BYTES: Final = 1 << 30
_THREADS_OF_THE_SERVER: Final = 2
_OPEN: Final = 0  # `readonly`: anything goes; 1: nothing but reading; 2: reading, and settings may be changed
_TIMEOUTS: Final = {159, 160}  # TIMEOUT_EXCEEDED, TOO_SLOW
_LIMITS: Final = {
    158,
    241,
    307,
    396,
}  # TOO_MANY_ROWS, MEMORY_LIMIT_EXCEEDED, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
_SCHEMA: Final = {47, 60, 81}  # UNKNOWN_IDENTIFIER, UNKNOWN_TABLE, UNKNOWN_DATABASE
# What cannot be parsed as the type of its parameter, or is none that the question makes sense with.
_PARAMETERS: Final = {6, 26, 27, 36, 38, 41, 43, 53, 69, 70, 72, 131, 153, 321, 407, 457}
_ACCESS: Final = {192, 193, 194, 497, 516}  # an unknown user, a wrong password, a right that is not there


class Warehouse:
    """A pool of connections to one ClickHouse server."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        """Make it; it connects when it is first asked.

        Args:
            url: ``clickhouse[s]://USER:PASSWORD@HOST:PORT/DATABASE``; the options of clickhouse-driver may follow.
            connections: so many questions are asked at a time; others wait.
            timeout_s: a question is given up by the server after this.

        Raises:
            SettingsError: not such a URL.
        """
        try:
            host, options = parse_url(url)
        except ValueError as error:
            raise SettingsError(f"setting 'clickhouse' is not a ClickHouse URL: {error}") from None
        mend_sparse_columns()
        self._where = f"ClickHouse at {host}:{options.get('port', 9000)}"
        self._make = functools.partial(_Connection, host, options, timeout_s)
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(connections)
        self._executor = ThreadPoolExecutor(connections, "warehouse")
        self._waiting, self._longest_queue = 0, connections * _WAITING_PER_CONNECTION

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], then: Callable[[pa.Table], T], most_rows: int = 0
    ) -> T:
        """Ask, and return what ``then`` makes of the answer, in the connection's thread.

        Cancelling it is safe: the server is told to stop.

        Args:
            sql: a SELECT with ``{name:Type}`` for parameters.
            parameters: their values.
            then: of the answer as a table.
            most_rows: cut the answer after so many; 0 for not at all.

        Raises:
            Problem: the server is away, refuses, or would need too much; or too many wait already.
        """
        if self._waiting >= self._longest_queue:
            raise Problem(BUSY, f"{self._waiting} questions wait already; try again soon", {"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        connection = self._idle.pop() if self._idle else self._make()
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: then(connection.ask(sql, parameters, most_rows))
        )
        # The thread may outlive whoever waits for it; the place is free once it is done.
        work.add_done_callback(lambda done: self._give_back(connection, done))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            connection.interrupt()
            raise
        except (errors.Error, EOFError, OSError) as error:
            raise self._problem(error) from error

    async def check(self) -> None:
        """Ask whether the server answers. Cancelling it is safe.

        Raises:
            Problem: it does not.
        """
        await self.ask("SELECT 1 AS one", {}, lambda found: None)

    async def close(self) -> None:
        """Close the connections; questions that are still asked are taken back."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _give_back(self, connection: "_Connection", done: "asyncio.Future[Any]") -> None:
        self._slots.release()
        if not done.cancelled():
            done.exception()  # it was told already, or nobody waits for it any more
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()

    def _problem(self, error: Exception) -> Problem:
        if not isinstance(error, errors.ServerException):
            words = f"{self._where} cannot be reached: {str(error).splitlines()[0] if str(error) else repr(error)}"
            return Problem(UNAVAILABLE, words[:300], {"Retry-After": "2"})
        message = str(error.message).split("Stack trace:")[0].removeprefix("DB::Exception: ").strip()[:300]
        if error.code in _TIMEOUTS:
            return Problem(TIMEOUT, f"{message}; ask for a shorter span or fewer rows")
        if error.code in _LIMITS:
            return Problem(TOO_MUCH, f"{message}; ask for a shorter span or fewer rows")
        if error.code in _SCHEMA:
            return Problem(NOT_FOUND, f"{self._where} does not have this (yet): {message}")
        if error.code in _PARAMETERS:
            return Problem(BAD_PARAMETER, message)
        # A right that is missing, a full disk, a server that starts or stops: somebody's to put right.
        logger.warning("%s: %s (code %s)", self._where, message, error.code)
        words = "refuses our user" if error.code in _ACCESS else f"cannot answer (code {error.code})"
        return Problem(UNAVAILABLE, f"{self._where} {words}", {"Retry-After": "5"})


class _Connection:
    """One connection; used by one thread at a time, and interrupted from the event loop's."""

    def __init__(self, host: str, options: Mapping[str, Any], timeout_s: float) -> None:
        patience = {"connect_timeout": _CONNECT_WITHIN_S, "send_receive_timeout": timeout_s + _CONNECT_WITHIN_S}
        # use_numpy: otherwise times go through datetime, which has no nanoseconds.
        driver = {"server_side_params": True, "use_numpy": True, "network_compression_method": "LZ4"}
        settings = driver | dict(options.get("settings", {}))
        self._client = Client(host, **{**patience, **options, "settings": settings})
        self._limits: dict[str, Any] = {
            "max_execution_time": max(1, int(timeout_s)),
            "timeout_overflow_mode": "throw",
            "max_result_rows": _LARGEST_ANSWER_ROWS,
            "max_result_bytes": _LARGEST_ANSWER_BYTES,
            "result_overflow_mode": "throw",
            "max_memory_usage": _LARGEST_MEMORY_BYTES,
            "max_threads": _THREADS_OF_THE_SERVER,
        }
        self._settings: dict[str, Any] | None = None
        self._interrupted = False
        self.usable = True

    def ask(self, sql: str, parameters: Mapping[str, Any], most_rows: int) -> pa.Table:
        self.usable = False
        if self._interrupted:
            raise EOFError("nobody waits for the answer any more")
        try:
            if self._settings is None:
                self._settings = self._read_only()
            settings = self._settings | {"limit": most_rows} if most_rows else self._settings
            table: pa.Table = self._client.query_arrow(
                sql, dict(parameters), settings=settings, field_metadata=False
            )
        except errors.ServerException:
            self.usable = not self._interrupted
            raise
        except BaseException:
            self.close()
            raise
        self.usable = not self._interrupted
        return table

    def interrupt(self) -> None:
        """Wake the thread that waits for the server, which notices that we are gone."""
        self._interrupted = True
        self.usable = False
        connection = self._client.connection
        if connection is not None and connection.socket is not None:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(errors.Error, EOFError, OSError):
            self._client.disconnect()

    def _read_only(self) -> dict[str, Any]:
        """The settings of each question: ours, as far as the user may set them."""
        [[mode]] = self._client.execute("SELECT toUInt8(getSetting('readonly'))")
        if mode == _OPEN:
            return self._limits | {"readonly": 2}
        return self._allowed() if mode != 1 else {}

    def _allowed(self) -> dict[str, Any]:
        """Our limits where the user's own are not tighter: a profile refuses what is above its maximum."""
        names = ", ".join(f"'{name}'" for name in self._limits)
        rows = self._client.execute(f"SELECT name, value, max FROM system.settings WHERE name IN ({names})")  # noqa: S608
        allowed = dict(self._limits)
        for name, value, highest in rows:
            if highest is not None and isinstance(self._limits[name], int) and self._limits[name] > int(highest):
                allowed[name] = int(value) if 0 < int(value) <= int(highest) else int(highest)
        return allowed
