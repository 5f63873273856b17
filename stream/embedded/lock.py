"""A lock on a data directory or a cache: held by an open file, so it goes when its holders do."""

import fcntl
import os
import time
from pathlib import Path

from stream.errors import ServerError

_POLL_S = 0.05


class FileLock:
    """An exclusive ``flock`` on a file.

    Child processes that inherit ``fileno()`` hold the lock too: a server that has outlived its parent keeps its
    data directory locked, and a second server cannot be started on the same files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def fileno(self) -> int:
        """The descriptor that carries the lock.

        Raises:
            ServerError: the lock is not held.
        """
        if self._fd is None:
            raise ServerError(f"{self.path} is not locked")
        return self._fd

    def acquire(self, patience_s: float, what: str) -> None:
        """Take the lock.

        Args:
            patience_s: how long to wait for another holder to go.
            what: what is locked, for the message.

        Raises:
            ServerError: somebody else still holds it; says who, as far as known.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
                    os.close(fd)
                    raise ServerError(
                        f"{what} is in use by a running tickloom (started by process {holder}): stop that one, "
                        f"or choose another directory (lock file: {self.path})"
                    ) from None
                time.sleep(_POLL_S)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock up; without effect when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
