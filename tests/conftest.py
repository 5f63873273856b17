"""Fixtures for every test: real servers, started once for the run, and the shared market data."""

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.valkey import EmbeddedValkey
from stream.kafka_loops import use_lean_clients

# Two files of tests run at a time; threads of libraries that wait for each other by spinning would take minutes.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")

# The first example may have to compile a kernel, and machines are shared: how long one takes says nothing.
settings.register_profile("tickloom", parent=settings(), deadline=None)
settings.load_profile("tickloom")

use_lean_clients()  # as every role of the product does

IN_CI = os.environ.get("CI") == "true"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def unavailable(reason: str) -> None:
    """Skip where a developer's machine lacks something; fail in CI, where nothing may be left out unnoticed."""
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A running Apache Kafka. Tests share it, so they name their topics and groups with ``fresh_name``."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as server:
        if server.degraded_reason is not None:
            unavailable(server.degraded_reason)
        yield server


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A running ClickHouse. Tests share it, so they name their tables or databases with ``fresh_name``."""
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A running Valkey (a Redis server). Tests share it, so they prefix their keys with ``fresh_name``."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory with the real market data beside the repository."""
    if not SHARED_DATA.is_dir():
        unavailable(f"there is no market data in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def fresh_name() -> Callable[[str], str]:
    """Make a name that no other test has: ``fresh_name("ticks")`` is like ``ticks_3f2a_7``."""
    run = uuid.uuid4().hex[:4]
    numbers = itertools.count(1)
    return lambda stem: f"{stem}_{run}_{next(numbers)}"
