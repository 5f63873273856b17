"""A line that says how far a long question is."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console

from exporters.clickhouse.session import Session

_QUIET_S: Final = 0.5
_EVERY_S: Final = 0.2


@contextlib.contextmanager
def waiting_line(session: Session, console: Console) -> Iterator[None]:
    """Show the rows that the server has read and the time that went by, of what takes more than half a second."""
    if not console.is_terminal:
        yield
        return
    is_done = threading.Event()
    thread = threading.Thread(target=_show, args=(session, console, is_done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _show(session: Session, console: Console, is_done: threading.Event) -> None:
    begun_s = time.monotonic()
    if is_done.wait(_QUIET_S):
        return
    with console.status("") as status:
        while not is_done.wait(_EVERY_S):
            status.update(_line(*session.progress, time.monotonic() - begun_s))


def _line(read: int, total: int, elapsed_s: float) -> str:
    share = f" of {total:,} ({100 * min(1.0, read / total):.0f} %)" if total else ""
    return f"{read:,}{share} rows read, {elapsed_s:.1f} s; Ctrl-C cancels"
