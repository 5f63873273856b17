"""The embedded ClickHouse server's process: ``python clickhouse_child.py``, run in the server's home directory.

The ``chdb-core`` wheel contains the whole of ``clickhouse-local``, whose ``SYSTEM START LISTEN`` opens ClickHouse's
real TCP and HTTP listeners. They live as long as one query runs, so one of its statements reads a pipe that stays
silent until we are told to stop (SIGTERM, or our standard input ends because the parent has gone).

``tests/stream/embedded/test_clickhouse.py`` guards every step: the module ``_chdb`` is private to the wheel.
"""

import importlib.machinery
import importlib.util
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

_STATEMENTS = (
    # A plain database, as on any server. The one that clickhouse-local opens by itself (see config.xml) takes the
    # name of a missing table for the name of a file.
    "CREATE DATABASE IF NOT EXISTS default ENGINE = Atomic; "
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT * FROM file('/dev/fd/{pipe}', LineAsString, 'line String') FORMAT Null; "
    "SYSTEM STOP LISTEN HTTP; SYSTEM STOP LISTEN TCP"
)
# The format of this query becomes the server's default format, and clients rely on it being this one.
_FORMAT = "TabSeparated"


def load_engine() -> Any:
    """The extension module, without ``import chdb``: that would open an engine, and a process can hold only one."""
    package = importlib.util.find_spec("chdb")
    if package is None or not package.submodule_search_locations:
        sys.exit("clickhouse_child: the chdb-core package is not installed")
    directory = Path(package.submodule_search_locations[0])
    home = Path.cwd()
    os.chdir(directory)  # it looks for its companion libraries in the current directory
    try:
        library = str(directory / "_chdb.abi3.so")
        loader = importlib.machinery.ExtensionFileLoader("_chdb", library)
        engine = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("_chdb", loader, origin=library))
        loader.exec_module(engine)
    finally:
        os.chdir(home)  # where clickhouse-local finds config.xml
    return engine


def main() -> None:
    """Serve until told to stop."""
    told_to_stop, tell = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(tell, b"x"))
    engine = load_engine()
    engine.set_signal_handlers_enabled(False)
    silent, held_open = os.pipe()
    statements = _STATEMENTS.format(pipe=silent)

    def serve() -> None:
        try:
            engine.query(statements, _FORMAT, path="data")
        finally:
            os.write(tell, b"x")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    # Our standard input says nothing and ends when the parent closes it or dies.
    select.select([told_to_stop, sys.stdin.fileno()], [], [])
    os.close(held_open)
    server.join()


if __name__ == "__main__":
    main()
