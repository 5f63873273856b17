"""Run a command that dies with the process that asked for it: ``python launcher.py PARENT_PID COMMAND...``.

A file of its own, run with ``python -I -S``, because the other way (``preexec_fn``) runs Python between fork and
exec, which may deadlock when the parent has threads. It imports nothing of ours, so it costs about 15 ms.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ask the kernel for SIGKILL when the parent goes, then become the command."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Other systems have no such signal: there a parent that is killed with SIGKILL leaves its children running, and
    # the data directory stays locked by them (see lock.py) until they are stopped by hand.
    if os.getppid() != parent_pid:
        # The parent died before the line above took effect, and its signal went nowhere.
        sys.exit("launcher: the parent process is gone")
    # As our own roles (`stream.scheduling`).
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose


if __name__ == "__main__":
    main()
