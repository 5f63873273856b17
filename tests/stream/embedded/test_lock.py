"""A lock on a directory: one holder at a time, and a refusal that says who."""

import os
from pathlib import Path

import pytest

from stream.embedded.lock import FileLock
from stream.errors import ServerError


def test_the_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "below" / "lock"), FileLock(tmp_path / "below" / "lock")
    first.acquire(0.0, "the directory")
    with pytest.raises(ServerError, match=rf"the directory is in use .* process {os.getpid()}\)"):
        second.acquire(0.1, "the directory")
    first.release()
    second.acquire(0.0, "the directory")
    second.release()


def test_a_lock_that_is_not_held_has_no_descriptor(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.release()
    with pytest.raises(ServerError, match="is not locked"):
        lock.fileno()
