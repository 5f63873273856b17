"""Questions of analysts: read-only, limited, streamed as Arrow batches, cancelled on the server.

A `Session` is one connection. It answers one question at a time, a batch for each block that the server sends, so
that memory holds one block however long the answer is. Values are bound by the server (``{symbol:String}``), never
pasted into the SQL.
"""

import contextlib
import logging
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Self

from clickhouse_driver import Client, errors
from clickhouse_driver.util.helpers import parse_url

from exporters.clickhouse.complaints import QueryCancelled, QueryRefused, explained
from exporters.clickhouse.sparse import mend_sparse_columns
from stream.errors import ServerError, SettingsError
from stream.settings import Settings

_PATIENCE_S: Final = 5.0
_ANSWER_S: Final = 300.0  # a server that works tells its progress ten times a second
_DRIVER: Final = {
    "use_numpy": True,  # nanoseconds would be cut to microseconds otherwise
    "server_side_params": True,
    "max_block_size": 65_409,
}
_CANCELLED_CODES: Final = frozenset({394, 735})  # QUERY_WAS_CANCELLED, and by its client
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\s*:\s*([^{}]+?)\s*\}")


@dataclass(frozen=True)
class Limits:
    """What a question may cost. The server's own limits for its user stand above them."""

    seconds: int = 60  # max_execution_time
    rows: int = 10_000_000  # max_result_rows
    memory_bytes: int = 1 << 30  # max_memory_usage

    def settings(self) -> dict[str, int]:
        """Return ClickHouse's settings for them."""
        return {
            "max_execution_time": self.seconds,
            "max_result_rows": self.rows,
            "max_memory_usage": self.memory_bytes,
        }


class Answer:
    """What the server sends for one question: ``schema``, and batches to iterate over once."""

    def __init__(self, session: "Session", reader: Any) -> None:
        """Take over a stream that has begun."""
        self.schema = reader.schema
        self._session, self._reader = session, reader

    def __iter__(self) -> Iterator[Any]:
        """Yield ``pyarrow.RecordBatch``.

        Raises:
            QueryRefused: a limit was met, or a value cannot be computed; what came before is not the answer.
            QueryCancelled: `Session.cancel` was called; likewise.
            ServerError: the connection is lost.
        """
        with self._session.telling_errors():
            yield from self._reader
        self._session.check_cancelled()

    def first(self, rows: int) -> tuple[list[Any], bool]:
        """Return the batches of the first ``rows`` rows, and whether there are more, which are not fetched."""
        batches, left = [], rows
        for batch in self:
            batches.append(batch.slice(0, left))
            left -= batches[-1].num_rows
            if batch.num_rows > batches[-1].num_rows:
                self._session.cancel()
                with contextlib.suppress(QueryCancelled, QueryRefused, ServerError):
                    for _ in self:
                        pass
                return batches, True
        return batches, False


class Session:
    """One connection of somebody who asks and changes nothing. Not for use by two threads, but for `cancel`."""

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        """Make it; it connects at the first question.

        Args:
            url: ``clickhouse[s]://USER:PASSWORD@HOST:PORT/DATABASE``.
            limits: of each question.

        Raises:
            SettingsError: not such a URL.
        """
        try:
            host, options = parse_url(url)
        except ValueError as error:
            raise SettingsError(f"not a ClickHouse URL: {error}") from None
        self.where = f"ClickHouse at {host}:{options.get('port', 9000)}"
        self._limits = Limits() if limits is None else limits
        patience = {"connect_timeout": _PATIENCE_S, "send_receive_timeout": _ANSWER_S}
        self._settings = _DRIVER | options.pop("settings", {})
        # It warns of types that it reads without numpy, and logs a traceback each time that it cannot connect.
        logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
        mend_sparse_columns()
        self._client = Client(host, settings=self._settings, **(patience | options))
        self._allowed: dict[str, int] | None = None
        self._query = ""
        self._is_asking = False
        self._is_cancelled = False

    @classmethod
    def of(cls, settings: Settings, limits: Limits | None = None) -> Self:
        """Return the session of somebody with these settings.

        Raises:
            SettingsError: no server is configured.
        """
        url = settings.clickhouse if settings.clickhouse_analyst is None else settings.clickhouse_analyst
        if url is None:
            raise SettingsError(
                "no ClickHouse is configured, and no demo runs here: start one with `tickloom demo`, set "
                "TICKLOOM_CLICKHOUSE_ANALYST=clickhouse://USER:PASSWORD@HOST:PORT/DATABASE, or give --clickhouse"
            )
        return cls(url.get_secret_value(), limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(errors.Error, OSError, EOFError):
            self._client.disconnect()

    def ask(self, query: str, values: Mapping[str, str] | None = None) -> Answer:
        """Ask one question; return once its answer begins.

        Args:
            query: one statement of ClickHouse's SQL.
            values: of its parameters, as text in ClickHouse's notation.

        Raises:
            QueryRefused: the server does not accept it, or a parameter has no value.
            QueryCancelled: `cancel` was called.
            ServerError: the server cannot be reached.
        """
        query = query.strip().removesuffix(";").rstrip()
        given = dict(values or {})
        bound = _bound(query, given)
        self._query, self._is_cancelled = query, False
        with self.telling_errors():
            settings = {**self._allowed_limits(), "readonly": 2}
            self._is_asking = True
            reader = self._client.query_arrow_stream(query, bound, settings=settings)
        return Answer(self, reader)

    def rows(self, query: str, values: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the whole of a short answer. Raises as `ask` and `Answer`."""
        return [row for batch in self.ask(query, values) for row in batch.to_pylist()]

    @property
    def progress(self) -> tuple[int, int]:
        """Rows read of the question under way, and rows to read as far as the server knows."""
        info = getattr(self._client, "last_query", None)
        return (0, 0) if info is None else (info.progress.rows, info.progress.total_rows)

    def cancel(self) -> None:
        """Ask the server to stop what it does; the answer ends with `QueryCancelled`. From any thread, or a signal.

        A second call closes the connection, which a server that does not listen notices some day.
        """
        if not self._is_asking:
            return
        if self._is_cancelled:
            self.close()
            return
        self._is_cancelled = True
        self._client.connection.send_cancel()

    @contextlib.contextmanager
    def cancelled_by_ctrl_c(self) -> Iterator[None]:
        """Let Ctrl-C cancel what is asked meanwhile. Only in the main thread."""

        def on_signal(_: int, __: FrameType | None) -> None:
            if not self._is_asking:
                raise KeyboardInterrupt
            self.cancel()

        before = signal.signal(signal.SIGINT, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except errors.ServerException as error:
            self._is_asking = False
            if self._is_cancelled or error.code in _CANCELLED_CODES:
                raise QueryCancelled("cancelled") from None
            raise QueryRefused(explained(int(error.code), str(error.message), self._query)) from None
        except (errors.Error, EOFError, OSError) as error:
            self._is_asking = False
            if self._is_cancelled:
                raise QueryCancelled("cancelled; the connection was closed") from None
            raise ServerError(f"{self.where} cannot be reached: {str(error) or error!r}") from None
        except (ValueError, TypeError, AttributeError) as error:
            # The driver's Arrow conversion has no tuples, and takes only strings that are UTF-8.
            self.close()
            self._is_asking = False
            raise QueryRefused(
                "a column has a type that cannot be shown: a tuple, or bytes that are no text; right would be "
                "toString(COLUMN), COLUMN.1 and COLUMN.2 for the elements of a tuple, or hex(COLUMN) for bytes"
            ) from error

    def check_cancelled(self) -> None:
        """Note that the answer is over.

        Raises:
            QueryCancelled: because it was cancelled, and what came is not the whole of it.
        """
        self._is_asking = False
        if self._is_cancelled:
            raise QueryCancelled("cancelled")

    def _allowed_limits(self) -> dict[str, int]:
        """Return our limits, or those of the server's profile where they are narrower: it refuses wider ones."""
        if self._allowed is None:
            wanted = self._limits.settings()
            names = ", ".join(f"'{name}'" for name in wanted)
            told = self._client.execute(f"SELECT name, value, max FROM system.settings WHERE name IN ({names})")  # noqa: S608
            allowed = dict(wanted)
            for name, value, most in told:
                limits = [int(float(each)) for each in (value, most) if each is not None and float(each) > 0]
                allowed[name] = min([wanted[name], *limits])
            self._allowed = allowed
        return self._allowed


class _Text:
    """A parameter's value, quoted as the protocol wants it; by us, because the driver quotes arrays twice."""

    def __init__(self, raw: str) -> None:
        self._raw = raw

    def __str__(self) -> str:
        return self._raw.replace("\\", "\\\\").replace("'", "\\'")


_TSV: Final = str.maketrans(
    {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}
)


def parameters_of(query: str) -> dict[str, str]:
    """Return the types of the parameters that a query has, by name."""
    return dict(_PLACEHOLDER.findall(query))


def _bound(query: str, given: Mapping[str, str]) -> dict[str, Any]:
    kinds = parameters_of(query)
    missing = [f"--param {name}=... ({kind})" for name, kind in kinds.items() if name not in given]
    if missing:
        raise QueryRefused(f"the query has parameters without a value; give {', '.join(missing)}")
    unknown = [name for name in given if name not in kinds]
    if unknown:
        has = ", ".join(kinds) or "none"
        raise QueryRefused(f"the query has no parameter {', '.join(unknown)}; it has {has}")
    bound: dict[str, Any] = {}
    for name, kind in kinds.items():
        value = given[name]
        if kind.startswith("Nullable") and value == "NULL":
            text = "\\N"
        elif kind.startswith(("Array", "Map", "Tuple")):
            text = value
        else:
            text = value.translate(_TSV)
        bound[name] = _Text(text)
    return bound
