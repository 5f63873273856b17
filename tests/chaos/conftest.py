"""The helpers are plain modules: faults, flows, full_client, storm, verdict, and those of tests/live."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE.parent / "live", HERE):
    sys.path.insert(0, str(folder))
