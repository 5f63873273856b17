"""The helpers are plain modules beside these tests, and those of tests/live and tests/agents."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE.parent / "agents", HERE.parent / "live", HERE):
    sys.path.insert(0, str(folder))
