import importlib.util
import os

import pytest


@pytest.fixture
def bench_group() -> None:
    """What the dependency group `bench` brings; skip where it is not installed, but not in CI."""
    needed = ("confluent_kafka", "psutil", "talib", "talipp")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the dependency group `bench` is not installed: there is no {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
