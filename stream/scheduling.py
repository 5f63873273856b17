"""How the kernel is to share the processors among the stages that a tick goes through."""

import os


def yield_to_no_waker() -> None:
    """Ask the kernel that this process takes a processor from nobody only because it has been woken (SCHED_BATCH).

    Each stage wakes the next, which else interrupts it in the middle of its work: two thousand times a second on
    two cores, and both go on with cold caches. Where there is a core for each stage nothing changes. Who is batch
    waits for nothing that is SCHED_IDLE, as a nightly training is. A policy that somebody has chosen stays, and so
    does that of a system without this one. For threads that start from now on, and for children.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
