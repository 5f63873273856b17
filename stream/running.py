"""Where the servers of a running demo are, so that other commands find them without being told.

A demo writes a *run file* into its directory and holds a lock on it as long as it lives: a file that nobody holds
was left by one that was killed, and counts for nothing.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from stream.settings import Settings

logger = logging.getLogger(__name__)

RUN_FILE: Final = "running.json"
# Settings that a run file tells. Whoever sets one of a group means a server of their own, and gets no other's.
_GROUPS: Final = (("kafka",), ("clickhouse", "clickhouse_analyst"), ("redis",))


@contextlib.contextmanager
def run_file(directory: Path, addresses: Mapping[str, str]) -> Iterator[None]:
    """Tell others what runs here, until the context ends.

    Args:
        directory: of the demo, below ``DATA_DIR/demo``.
        addresses: settings by name, and ``feed``, the URL of the WebSocket feed.
    """
    path = directory / RUN_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # URLs may have passwords
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        json.dump({**addresses, "pid": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_demo(data_dir: Path) -> dict[str, Any] | None:
    """Return what the run file of a demo below ``data_dir`` tells, of the youngest where several run, or None."""
    paths = [path for path in (data_dir / "demo").glob(f"*/{RUN_FILE}") if path.is_file()]
    for path in sorted(paths, key=lambda each: each.stat().st_mtime, reverse=True):
        told = _read(path)
        if told is not None:
            return told
    return None


def beside_demo(settings: Settings) -> Settings:
    """Return the settings with the addresses of the demo that runs in ``data_dir``, where none are set.

    For commands that look and ask. Roles that move data are told where, and never join a demo by accident.
    """
    missing = [group for group in _GROUPS if all(getattr(settings, name) is None for name in group)]
    told = running_demo(settings.data_dir) if missing else None
    if told is None:
        return settings
    update: dict[str, Any] = {}
    for name in [name for group in missing for name in group]:
        if name in told:
            update[name] = told[name] if name == "kafka" else SecretStr(told[name])
    logger.debug("the demo of process %s gives %s", told.get("pid"), ", ".join(update))
    return settings.model_copy(update=update)


def feed_url(settings: Settings) -> str:
    """Return where the feed is: that of the demo that runs in ``data_dir``, else that of the settings."""
    told = running_demo(settings.data_dir)
    return f"ws://{settings.host}:{settings.gateway_port}/feed" if told is None else str(told["feed"])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held: it lives
                told = json.load(file)
                return dict(told) if isinstance(told, dict) else None
    except (OSError, ValueError):  # it has just ended, or is about to begin
        return None
    return None
