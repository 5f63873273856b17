"""CPU seconds of other processes, as of any moment while they ran."""

import threading
import time
from types import TracebackType
from typing import Self

import numpy as np
import psutil

# The kernel counts in steps of 10 ms.
_EVERY_S = 0.02


class ProcessorTime:
    """Samples the CPU time (user and system, all threads) of processes while the ``with`` block runs."""

    def __init__(self, *pids: int) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._at_ns: list[int] = []
        self._cpu_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="processor time", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, begin_ns: int, end_ns: int) -> float:
        """Return the CPU seconds that the processes used between two moments of the wall clock."""
        begin, end = np.interp([begin_ns, end_ns], self._at_ns, self._cpu_s)
        return float(end - begin)

    def _sample(self) -> None:
        while not self._stop.is_set():
            try:
                times = [process.cpu_times() for process in self._processes]
            except psutil.NoSuchProcess:
                return
            self._at_ns.append(time.time_ns())
            self._cpu_s.append(sum(time.user + time.system for time in times))
            self._stop.wait(_EVERY_S)
