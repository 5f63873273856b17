"""One child process: started with its log in a file, watched, stopped, and never left behind.

    Child() ──▶ running ──▶ stop(): SIGTERM, wait, SIGKILL
                   └──────▶ kill(): SIGKILL, as a crash

A child has a session of its own, so Ctrl-C in the terminal reaches only us and we stop the children in order. On
Linux it dies with us even when we are killed with SIGKILL (see launcher.py).
"""

import logging
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from stream.errors import ServerError

logger = logging.getLogger(__name__)

LOG_LIMIT_BYTES = 16 * 1024 * 1024  # a log that has grown past this is set aside as NAME.log.1 at the next start
_TAIL_BYTES = 16 * 1024
_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Command:
    """What to run: the arguments, the directory to run in, and what differs from our own environment."""

    argv: list[str]
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)


class _Spawner:
    """Starts every child from one thread that lives as long as the process.

    The kernel's parent-death signal follows the *thread* that forked: a child started from a pool's thread would be
    killed as soon as that pool shuts down. With this thread in between, callers may start servers from any thread.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Command, int, int, Future[subprocess.Popen[bytes]]]]
        self._requests = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def popen(self, command: Command, log_fd: int, keep_fd: int) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="embedded-spawner", daemon=True)
                self._thread.start()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((command, log_fd, keep_fd, started))
        return started.result()

    def _run(self) -> None:
        while True:
            command, log_fd, keep_fd, started = self._requests.get()
            try:
                started.set_result(self._start(command, log_fd, keep_fd))
            except OSError as error:
                started.set_exception(error)

    @staticmethod
    def _start(command: Command, log_fd: int, keep_fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command.argv],
            cwd=command.cwd,
            env={**os.environ, **command.environment},
            stdin=subprocess.PIPE,  # closed by our death too: a child that reads it can leave in good order
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,
            pass_fds=(keep_fd,),
        )


_SPAWNER = _Spawner()


class Child:
    """A running child process.

    Args:
        name: what the messages call it.
        command: what to run.
        log_path: its standard output and error are appended here.
        keep_fd: a file descriptor that the child inherits, so that a lock on it lasts as long as the child.

    Raises:
        ServerError: the command cannot be started at all.
    """

    def __init__(self, name: str, command: Command, log_path: Path, keep_fd: int) -> None:
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if log_path.exists() and log_path.stat().st_size > LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_name(log_path.name + ".1"))
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = _SPAWNER.popen(command, log.fileno(), keep_fd)
            except OSError as error:
                raise ServerError(f"{name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process id; after the end it stays the one that was."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended (minus the signal that ended it), or None while it runs."""
        return self._process.poll()

    def logged(self) -> str:
        """What this run has written to its log so far (of a long log, the last 16 KiB)."""
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """The last lines of this run's log, for an error message."""
        lines = [line for line in self.logged().splitlines() if line.strip()]
        return "\n".join("    " + line[:300] for line in lines[-count:]) or "    (its log is empty)"

    def stop(self, patience_s: float) -> None:
        """Ask it to end (SIGTERM), and kill it when it has not ended after ``patience_s``."""
        self._close_stdin()
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop within %.0f s of SIGTERM and is killed", self.name, patience_s)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        self._close_stdin()
        self._process.kill()
        self._process.wait()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
