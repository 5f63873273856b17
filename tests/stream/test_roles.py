"""What every role's process does before and around its work."""

import subprocess
import sys

_ROLE = """
import asyncio, gc
from stream import roles

roles._STARTED_WITHIN_S = 0.01
made = [[] for _ in range(100_000)]  # as imports do

async def main(stop):
    while not gc.get_freeze_count():
        await asyncio.sleep(0.01)
    print(len(gc.get_objects()) < len(made))

roles.run_until_stopped(main)
"""


def test_a_full_collection_does_not_look_at_what_the_start_of_a_role_made() -> None:
    """A gateway stood for 60 and 100 ms in each one."""
    done = subprocess.run([sys.executable, "-c", _ROLE], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
