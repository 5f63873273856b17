"""The deployment's files, read; the tools that judge them; and the secrets that they ask for."""

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from agents.metrics import LaneMetrics
from exporters.archive.metrics import ArchiveMetrics
from exporters.feed_early import EarlyCopies
from exporters.feed_metrics import FeedMetrics
from exporters.intake import Intake
from exporters.metrics import IntakeMetrics, SinkMetrics
from exporters.outcome_board import OutcomeBoard
from exporters.rest.telemetry import ApiMetrics
from models.feature_drift import FeatureDrift
from models.registry import Registry
from models.rollback import Guard
from stream.clock import wall_ns
from stream.settings import load_settings
from stream.sources.delivery import Delivery
from stream.sources.tally import Tally
from stream.telemetry import Health

ROOT = Path(__file__).resolve().parents[2]

_SERIES_OF = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml as Compose sees it once ``make env`` has run: merged, with every variable put in."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    values = example_environment() | {name: f"test-{name.lower()}" for name in secret_names()}

    def value_of(found: "re.Match[str]") -> str:
        name, default = found[1], found[2] or ""
        return values.get(name) or default.removeprefix(":-")

    # A doubled dollar is Compose's way to write one.
    filled = re.sub(r"(?<!\$)\$\{([A-Z_]+)(:[-?][^}]*)?\}", value_of, text).replace("$$", "$")
    parsed: dict[str, Any] = yaml.safe_load(filled)
    return parsed


@pytest.fixture(scope="session")
def roles(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run our own image, by name."""
    return {name: service for name, service in compose["services"].items() if service["image"] == "tickloom:local"}


@pytest.fixture(scope="session")
def exported() -> set[str]:
    """The names of all series that the roles export."""
    registries = [
        Delivery(load_settings(environ={}).settings, "127.0.0.1:9092", "source", asyncio.Event()).registry
    ]
    for owner in (
        *(lambda registry: Tally(registry, []), LaneMetrics, IntakeMetrics, SinkMetrics, FeedMetrics),
        *(ArchiveMetrics, ApiMetrics),
    ):
        registries.append(CollectorRegistry())
        owner(registries[-1])
    guard = Guard(Registry("none"), "", Path("none"), (), 1, 0.5)
    registries.append(CollectorRegistry())
    OutcomeBoard(registries[-1], guard, IntakeMetrics(CollectorRegistry()), wall_ns)
    registries.append(CollectorRegistry())
    FeatureDrift((), registries[-1])
    registries.append(CollectorRegistry())
    EarlyCopies(Intake(IntakeMetrics(CollectorRegistry())), 1024, Health("gateway"), wall_ns, registries[-1])
    families = [family for registry in registries for family in registry.collect()]
    return {family.name + end for family in families for end in _SERIES_OF[family.type]}


@pytest.fixture(scope="session")
def tick_outcomes() -> set[str]:
    """What can become of a tick: the label ``outcome`` of tickloom_ticks_total."""
    registry = CollectorRegistry()
    LaneMetrics(registry)
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {sample.labels["outcome"] for sample in samples if sample.name == "tickloom_ticks_total"}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """A ``.env`` with a value for every secret."""
    path = tmp_path / "env"
    secrets = {name: f"test-{name.lower()}" for name in secret_names()}
    path.write_text("".join(f"{name}={value}\n" for name, value in (example_environment() | secrets).items()))
    return path


@pytest.fixture
def tool() -> Callable[..., str]:
    """Find one of several commands; skip where there is none, but fail in CI, which installs them."""

    def find(*names: str) -> str:
        for name in names:
            found = shutil.which(name)
            if found is not None:
                return found
        reason = f"there is no {' or '.join(names)} on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return find


def example_environment() -> dict[str, str]:
    """Return what .env.example sets; a secret is empty there."""
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def secret_names() -> set[str]:
    """Return the names in .env.example that have no value."""
    return {name for name, value in example_environment().items() if not value}
