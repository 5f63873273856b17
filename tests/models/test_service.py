"""Which models a worker has: what it starts lanes with, what it refuses, and that it says so."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from agents import features
from agents.model_metrics import ModelMetrics
from agents.swapping import SETTINGS_VERSION
from agents.swaps import Swap
from models.predictor import load_predictor
from models.promotion import Promotion
from models.registry import Registry, Version
from models.service import ModelService, _try_out
from stream.errors import InvariantError, ModelError
from stream.telemetry import Health

pytest.importorskip("onnx")

from bench.other_model import write_other_model

CHAMPION = Path(__file__).resolve().parents[2] / "models" / "champion" / "model.onnx"


class Consumer:
    """A topic that is read to its end."""

    async def end_offsets(self, parts: Any) -> dict[Any, int]:
        return dict.fromkeys(parts, 0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    found = []
    for seed in (1, 2):
        write_other_model(CHAMPION, tmp_path / str(seed) / "model.onnx", seed=seed)
        found.append(registry.publish(tmp_path / str(seed) / "model.onnx", by="me"))
    return found


@pytest.fixture
def service(registry: Registry) -> ModelService:
    base = load_predictor(CHAMPION)
    metrics = ModelMetrics(CollectorRegistry())
    made = ModelService("", registry, base, "auto", features.NAMES, "worker-1", Health("worker"), metrics)
    made._consumer = Consumer()
    made._is_ready.set()
    return made


def record(service: ModelService, offset: int, version: str, spread: int = 1) -> Swap:
    model_id = service._base.model_id if version == SETTINGS_VERSION else Version.parse(version).model_id
    swap = Swap(3, offset, spread, model_id, version, 0, 1, "worker-2", 1)
    service.said.take(swap.key.encode(), swap.to_json())
    return swap


def role(registry: Registry, version: str) -> Promotion:
    sha256 = registry.manifest(version)["sha256"]
    return Promotion(version, Version.parse(version).model_id, sha256, 1, None, "why", "who", 1)


async def test_a_lane_without_records_starts_with_the_model_of_the_settings(service: ModelService) -> None:
    plan = await service.plan(3, 100)
    assert (plan.serving, plan.swaps, plan.known, plan.repair) == (service._base, (), (), None)


async def test_a_lane_starts_with_the_models_that_its_blocks_are_recorded_for(
    service: ModelService, versions: list[str]
) -> None:
    first, second = record(service, 10, versions[0], 5), record(service, 20, versions[1], 5)
    back = record(service, 40, SETTINGS_VERSION)
    ids = [Version.parse(version).model_id for version in versions]
    for start, serving, left in (
        (0, service._base.model_id, [first, second, back]),
        (14, service._base.model_id, [first, second, back]),
        (15, ids[0], [second, back]),
        (25, ids[1], [back]),
        (41, service._base.model_id, []),
    ):
        plan = await service.plan(3, start)
        assert plan.serving.model_id == serving
        assert [swap for swap, _ in plan.swaps] == left
        assert [predictor.model_id for _, predictor in plan.swaps] == [swap.model_id for swap in left]
        assert plan.repair is None
    assert (await service.plan(2, 15)).known == ()


async def test_a_recorded_model_that_is_gone_is_told_and_the_settings_model_serves(
    service: ModelService, registry: Registry, versions: list[str]
) -> None:
    record(service, 10, versions[0])
    shutil.rmtree(registry.fetch(versions[0]).parent)
    plan = await service.plan(3, 100)
    assert plan.serving is service._base
    assert plan.repair is not None
    assert plan.repair.version == SETTINGS_VERSION
    assert service._metrics.refused == 1
    assert versions[0] in str(service.figures()["refused_models"])


async def test_a_record_for_the_model_of_other_settings_is_no_record_for_ours(service: ModelService) -> None:
    swap = Swap(3, 5, 1, 12345, SETTINGS_VERSION, 0, 1, "worker-2", 1)
    service.said.take(swap.key.encode(), swap.to_json())
    assert (await service.plan(3, 100)).repair is not None
    assert "other settings" in str(service.figures()["refused_models"])


async def test_what_is_promoted_is_loaded_or_refused_with_the_reason(
    service: ModelService, registry: Registry, versions: list[str]
) -> None:
    champion = role(registry, versions[0])
    path = registry.fetch(versions[1])
    service.said.take(b"champion", champion.to_json())
    challenger = role(registry, versions[1])
    service.said.take(f"challenger/{challenger.model_id:016x}".encode(), challenger.to_json())
    path.write_bytes(path.read_bytes()[:-100])
    keeping = asyncio.create_task(service._keep_up())
    try:
        async with asyncio.timeout(30):
            while not service.refused or service.wanted is None:
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert service.wanted.version == versions[0]
    assert service.wanted.predictor.model_id == champion.model_id
    assert "truncated" in service.refused[versions[1]]
    assert service.challengers == {}
    assert service.figures()["champion"] == versions[0]


async def test_another_file_than_the_promoted_one_is_refused(
    service: ModelService, registry: Registry, versions: list[str]
) -> None:
    promoted = role(registry, versions[0])
    other = registry.fetch(versions[1])
    for name in ("model.onnx", "model.json"):
        shutil.copy(other.with_name(name), registry.fetch(versions[0]).with_name(name))
    assert await service._candidate(promoted) is None
    assert "what was promoted has" in service.refused[versions[0]]
    # Nor is it believed by its own word.
    assert await service._candidate(role(registry, versions[0])) is None
    assert "holds another model" in service.refused[versions[0]]


async def test_a_challenger_that_failed_in_a_lane_is_gone(service: ModelService, versions: list[str]) -> None:
    model_id = Version.parse(versions[0]).model_id
    service._challengers[model_id] = service._base
    service.on_challenger_failed(model_id, InvariantError("not finite"))
    service.on_challenger_failed(model_id, InvariantError("not finite"))
    assert service.challengers == {}
    assert service._metrics.challengers_dropped == 1


def test_a_model_that_fails_on_real_rows_must_not_serve() -> None:
    predictor = load_predictor(CHAMPION)
    rows = np.zeros((5, features.COUNT), np.float32)
    _try_out(predictor, [rows, rows[:0]])
    rows[3] = np.nan
    with pytest.raises(ModelError, match=r"on real feature rows: .* for feature row 3"):
        _try_out(predictor, [rows])
