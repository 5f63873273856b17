"""The processes of a demo: each role of production as a child, restarted when it dies, stopped in order."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from stream.embedded.ports import free_port
from stream.embedded.process import Child, Command
from stream.errors import ServerError
from stream.settings import PREFIX, Settings, to_environment

logger = logging.getLogger(__name__)

_STOP_S = 20.0
_RESTART_AFTER_S = 1.0
_HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Role:
    """A command line to run as a part of the demo."""

    name: str
    arguments: Sequence[str]  # of `tickloom`
    variables: dict[str, str]  # settings that differ from the demo's
    ends_by_itself: bool = False  # a replay is done at some time


class Part:
    """One role's process: its health, and a new process when it dies."""

    def __init__(self, role: Role, settings: Settings, root: Path) -> None:
        self.role = role
        self.port = free_port()
        self.restarts = 0
        self.health: dict[str, Any] = {}
        self.healthy = False
        self.finished = False
        self._died_s: float | None = None
        self._log_path = root / "logs" / f"{role.name}.log"
        environment = to_environment(settings) | role.variables
        environment |= {f"{PREFIX}{key}_PORT": str(self.port) for key in ("SOURCE", "WORKER", "EXPORTER")}
        # The roles share two cores: libraries must not start a pool of threads each.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        argv = [sys.executable, "-m", "stream", *role.arguments]
        self._command = Command(argv, Path.cwd(), environment)
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The process id of the running (or last) process."""
        return 0 if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive()

    @property
    def exit_code(self) -> int | None:
        """How the process ended, or None while it runs."""
        return None if self._child is None else self._child.returncode

    def start(self) -> None:
        """Start the process; `poll` tells when it is ready."""
        with Path(os.devnull).open("rb") as nothing:
            self._child = Child(self.role.name, self._command, self._log_path, nothing.fileno())
        self._died_s = None
        self.health, self.healthy = {}, False

    def restart_if_dead(self) -> None:
        """Start a new process a moment after the last one died, unless its work is done."""
        if self._child is None or self._child.alive() or self.finished:
            return
        if self.role.ends_by_itself and self.exit_code == 0:
            self.finished = True
        elif self._died_s is None:
            self._died_s = time.monotonic()
            logger.warning("%s ended with code %s:\n%s", self.role.name, self.exit_code, self.last_lines())
        elif time.monotonic() - self._died_s >= _RESTART_AFTER_S:
            self.restarts += 1
            self._child.kill()  # it is dead; this closes our end of its pipe
            self.start()

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask the process how it is."""
        self.healthy = False
        if not self.alive:
            return
        try:
            timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
            async with session.get(f"http://127.0.0.1:{self.port}/health", timeout=timeout) as answer:
                self.health = await answer.json()
                self.healthy = answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return

    def last_lines(self) -> str:
        """The end of the process's log."""
        return "" if self._child is None else self._child.last_lines()

    def stop(self) -> None:
        """Ask the process to stop, and wait until it has."""
        if self._child is not None:
            self._child.stop(_STOP_S)

    def check_started(self) -> None:
        """Complain where the first process did not survive its start.

        Raises:
            ServerError: with the end of its log.
        """
        if not self.alive and not self.role.ends_by_itself:
            raise ServerError(f"{self.role.name} did not start; {self._log_path} ends with:\n{self.last_lines()}")
