"""A class archive for the Java machine (AppCDS): later starts of Kafka take half the time.

Made once by a short run of Kafka that writes down which classes it has loaded. It belongs to one build of Java and
to these very jars; Java checks that, and starts without the archive when it does not fit.
"""

import logging
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stream.embedded.java import Java
from stream.embedded.kafka_jars import KAFKA_VERSION
from stream.embedded.kafka_node import KafkaNode, has_started
from stream.embedded.lock import FileLock
from stream.embedded.ports import free_port
from stream.embedded.process import Child
from stream.errors import ServerError

logger = logging.getLogger(__name__)

_RUN_LIMIT_S = 120.0
_DUMP_LIMIT_S = 60.0
_POLL_S = 0.05


def archive_options(java: Java, jars: Path, report: Callable[[str], None]) -> list[str]:
    """The Java options that use the archive; makes it first when it is not there. Empty when it cannot be made."""
    archive = jars / f"classes-{java.build}.jsa"
    if not archive.exists():
        lock = FileLock(archive.with_suffix(".lock"))
        try:
            lock.acquire(_RUN_LIMIT_S, f"the class archive {archive}")
            if not archive.exists():  # somebody else may have made it while we waited for the lock
                report(
                    f"Apache Kafka {KAFKA_VERSION}: preparing its classes, so that later starts are quicker (once)"
                )
                _make(archive, java, jars, lock)
        except (ServerError, OSError) as error:
            logger.warning("Kafka starts without a class archive, a few seconds slower: %s", error)
        finally:
            lock.release()
    # An empty file says that making it was tried in vain, so that it is not tried at every start.
    usable = archive.exists() and archive.stat().st_size > 0
    return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"] if usable else []


def _make(archive: Path, java: Java, jars: Path, lock: FileLock) -> None:
    with tempfile.TemporaryDirectory(prefix=".classes-", dir=jars) as scratch:
        home = Path(scratch)
        dumped = home / archive.name
        node = KafkaNode(home, free_port(), free_port(), java, jars)
        child = Child(
            "kafka class archive", node.command([f"-XX:ArchiveClassesAtExit={dumped}"]), home / "log", lock.fileno()
        )
        try:
            deadline_s = time.monotonic() + _RUN_LIMIT_S
            while child.alive() and not has_started(child) and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
        finally:
            child.stop(_DUMP_LIMIT_S)
        if dumped.exists() and child.returncode != -signal.SIGKILL:  # killed: it may be half written
            dumped.rename(archive)
        else:
            archive.touch()
            raise ServerError(f"Java wrote no archive; the end of its log:\n{child.last_lines()}")
