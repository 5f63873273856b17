"""Time, injected: code that asks what time it is takes a `Clock`, and a test passes its own."""

import time
from collections.abc import Callable

# ns since 1970 UTC. `time.time_ns` in production; latencies are differences of these between processes of
# one machine, so the machine's clock must not be stepped by hand while it runs (NTP slewing is fine).
Clock = Callable[[], int]

wall_ns: Clock = time.time_ns

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
