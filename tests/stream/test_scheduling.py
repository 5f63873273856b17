"""How the kernel is asked to share the processors."""

import os
import subprocess
import sys

import pytest

_ASK = "import os; from stream.scheduling import yield_to_no_waker as go; {}; go(); print(os.sched_getscheduler(0))"


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")
@pytest.mark.parametrize(
    ("before", "after"),
    [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")],
    ids=["a process as it is started", "one for which somebody has chosen"],
)
def test_a_process_becomes_batch_unless_somebody_has_chosen_otherwise(before: str, after: str) -> None:
    code = _ASK.format(f"os.sched_setscheduler(0, os.{before}, os.sched_param(0))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == getattr(os, after)
