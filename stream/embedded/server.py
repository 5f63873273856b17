"""What the embedded servers have in common: a data directory, a port that stays, start, stop, crash and restart."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from stream.embedded.lock import FileLock
from stream.embedded.ports import free_port
from stream.embedded.process import Child, Command
from stream.errors import ServerError

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

_POLL_S = 0.02
_LOCK_PATIENCE_S = 1.0  # a killed predecessor's children need a moment to go


def report_to_log(line: str) -> None:
    """The default way to report progress."""
    logger.info("%s", line)


class EmbeddedServer(ABC):
    """A server that runs as our child on the loopback interface and keeps its files in one directory.

    Every method blocks; call them before the event loop runs, or in a thread (any thread: see ``process.py``).

    Args:
        data_dir: the directory below which all servers keep their data (``kafka/``, ``logs/``, ...).
        port: the port to listen on, or 0 for a free one; a restart keeps it.
    """

    name: ClassVar[str]
    ready_within_s: ClassVar[float]
    stops_within_s: ClassVar[float] = 10.0

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        self.data_dir = Path(data_dir).resolve()
        self._port = port
        self._child: Child | None = None
        self._lock = FileLock(self.data_dir / f"{self.name}.lock")

    @abstractmethod
    def _command(self, report: Report) -> Command:
        """Write the configuration for ``self.home`` and ``self.port`` and say what to run."""

    @abstractmethod
    def _is_ready(self, child: Child) -> bool:
        """Whether the server serves requests; asked again and again until it does."""

    @property
    def home(self) -> Path:
        """This server's own directory."""
        return self.data_dir / self.name

    @property
    def log_path(self) -> Path:
        """The file that takes the server's standard output and error."""
        return self.data_dir / "logs" / f"{self.name}.log"

    @property
    def port(self) -> int:
        """The port; chosen when it is first asked for."""
        if self._port == 0:
            self._port = free_port()
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running (or last) child.

        Raises:
            ServerError: it was never started.
        """
        return self._running().pid

    def alive(self) -> bool:
        """Whether the child process runs."""
        return self._child is not None and self._child.alive()

    def start(self, report: Report = report_to_log) -> Self:
        """Start and wait until it serves requests.

        Raises:
            ServerError: it runs already, the data directory is in use, or it did not come up in time.
        """
        self.launch(report)
        self.await_ready()
        return self

    def launch(self, report: Report = report_to_log) -> None:
        """The first half of ``start``: the child process runs, but may not serve yet.

        Raises:
            ServerError: it runs already, or the data directory is in use.
        """
        if self.alive():
            raise ServerError(f"the embedded {self.name} already runs as process {self.pid}")
        self.kill()  # lets go of what is left of a child that has died without being asked to
        self._lock.acquire(_LOCK_PATIENCE_S, f"the data directory {self.home}")
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._child = Child(self.name, self._command(report), self.log_path, self._lock.fileno())
        except BaseException:
            self._lock.release()
            raise

    def await_ready(self) -> None:
        """The second half of ``start``.

        Raises:
            ServerError: it ended, or does not serve in time; with the last lines of its log. It is stopped then.
        """
        child = self._running()
        deadline_s = time.monotonic() + self.ready_within_s
        try:
            while not self._is_ready(child):
                if not child.alive():
                    raise ServerError(f"the embedded {self.name} ended while starting; {self._log_says(child)}")
                if time.monotonic() > deadline_s:
                    limit = f"within {self.ready_within_s:.0f} s"
                    raise ServerError(f"the embedded {self.name} does not answer {limit}; {self._log_says(child)}")
                time.sleep(_POLL_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in good order (SIGTERM first), or do nothing when it does not run."""
        if self._child is not None:
            self._child.stop(self.stops_within_s)
        self._lock.release()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; ``restart`` brings it back."""
        if self._child is not None:
            self._child.kill()
        self._lock.release()

    def restart(self, report: Report = report_to_log) -> None:
        """Stop it if it runs, and start it on the same port and data.

        Raises:
            ServerError: as ``start``.
        """
        self.stop()
        self.start(report)

    def __enter__(self) -> Self:
        return self if self.alive() else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> Child:
        if self._child is None:
            raise ServerError(f"the embedded {self.name} was never started")
        return self._child

    @staticmethod
    def _log_says(child: Child) -> str:
        return f"the end of its log {child.log_path}:\n{child.last_lines()}"
