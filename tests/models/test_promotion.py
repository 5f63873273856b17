"""What the topic says, message by message, and what may be thrown away."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents import features
from agents.swaps import Swap
from models import promotion as promotion_module
from models.promotion import (
    CHALLENGER_KEY,
    CHAMPION_KEY,
    ModelsTopic,
    Promotion,
    challenge,
    promote,
    read_models,
    removable,
    retire,
    rollback,
    send_models,
)
from models.registry import Registry
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ModelError, RecordError, RegistryError, ServerError
from stream.topics import create_topics

CHAMPION = Path(__file__).resolve().parents[2] / "models" / "champion" / "model.onnx"
FIRST, SECOND, THIRD = (f"lstm/{number:06d}-{number:016x}" for number in (1, 2, 3))
TOLD: dict[str, Any] = {"reason": "a test", "by": "me"}


def promotion(version: str, generation: int) -> Promotion:
    return Promotion(version, int(version[-16:], 16), "0" * 64, generation, None, "why", "who", 1)


def swap(partition: int, offset: int, version: str, at_ns: int = 0) -> Swap:
    return Swap(partition, offset, 1, int(version[-16:], 16), version, 0, 1, "worker-1", at_ns)


def test_messages_come_back_as_they_were() -> None:
    told = dataclasses.replace(promotion(SECOND, 7), urgent=True, previous=FIRST)
    assert Promotion.from_json(told.to_json()) == told
    assert Swap.from_json(swap(3, 17, SECOND, 5).to_json()) == swap(3, 17, SECOND, 5)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        promotion(FIRST, 1).to_json().replace(b"lstm/", b"../../lstm/"),
        promotion(FIRST, 1).to_json().replace(b'"generation": 1', b'"generation": "1"'),
        promotion(FIRST, 1).to_json().replace(b'"model_id": "0000000000000001"', b'"model_id": "2"'),
    ],
)
def test_what_is_no_promotion_is_refused_and_counted(raw: bytes) -> None:
    with pytest.raises(RecordError, match="is no promotion"):
        Promotion.from_json(raw)
    said = ModelsTopic()
    assert said.take(CHAMPION_KEY.encode(), raw) is None
    assert said.champion is None
    assert said.refused == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"something", b"{}"),
        (b"swap/1/2", b"{}"),
        (b"swap/x/2", None),
        (b"swap/1/2", swap(1, 3, FIRST).to_json()),
        (b"swap/1/2", dataclasses.replace(swap(1, 2, FIRST), spread_blocks=0).to_json()),
        (b"challenger/xyz", None),
        (b"worker/1", b"5"),
    ],
)
def test_garbage_on_the_topic_is_counted_and_changes_nothing(key: bytes | None, value: bytes | None) -> None:
    said = ModelsTopic()
    assert said.take(key, value) is None
    assert said == ModelsTopic(refused=1)


def test_the_champion_of_the_highest_generation_counts() -> None:
    said = ModelsTopic()
    assert said.take(b"champion", promotion(FIRST, 1).to_json()) is not None
    assert said.take(b"champion", promotion(THIRD, 3).to_json()) is not None
    assert said.take(b"champion", promotion(SECOND, 2).to_json()) is None
    assert said.champion == promotion(THIRD, 3)


def test_a_tombstone_removes_a_challenger_and_a_swap() -> None:
    said = ModelsTopic()
    key = f"{CHALLENGER_KEY}{2:016x}".encode()
    assert said.take(key, promotion(SECOND, 1).to_json()) == promotion(SECOND, 1)
    assert said.take(key, None) == promotion(SECOND, 1)
    assert said.take(b"swap/1/2", swap(1, 2, FIRST).to_json()) == swap(1, 2, FIRST)
    assert said.take(b"swap/1/2", None) == swap(1, 2, FIRST)
    assert said == ModelsTopic()


def test_swaps_of_a_partition_come_by_offset() -> None:
    said = ModelsTopic()
    for each in (swap(0, 100, FIRST), swap(1, 5, SECOND), swap(0, 9, THIRD)):
        said.take(each.key.encode(), each.to_json())
    assert [each.offset for each in said.swaps_of(0)] == [9, 100]
    assert said.versions() == {FIRST, SECOND}


class Shelf(Registry):
    """A registry that has versions by name only."""

    def __init__(self, root: Path, versions: list[str]) -> None:
        super().__init__(str(root))
        self.held = versions

    def versions(self, name: str | None = None) -> list[str]:
        return self.held


def test_only_what_nobody_needs_is_removable(tmp_path: Path) -> None:
    versions = [f"lstm/{number:06d}-{number:016x}" for number in range(1, 13)]
    registry = Shelf(tmp_path, versions)
    role = versions.__getitem__
    changes: list[dict[str, Any]] = [{"champion": role(0)}, {"champion": role(1), "previous": role(0)}]
    changes += [{"champion": role(2), "previous": role(1)}, {"champion": role(3), "previous": role(2)}]
    for at_ns, change in enumerate(changes):
        registry.update(lambda held, c=change: dataclasses.replace(held, **c), **TOLD, clock=lambda at=at_ns: at)
    said = ModelsTopic()
    for each in (swap(0, 1, role(4), 0), swap(0, 2, role(5), 1), swap(0, 3, role(6), 9), swap(1, 1, role(7), 0)):
        said.take(each.key.encode(), each.to_json())
    # Roles since 2: versions 1 to 3 (0-based); swaps since 2: the last one, and what it followed; the newest two.
    assert removable(registry, said, 2, 2) == [role(number) for number in (0, 4, 8, 9)]
    assert removable(registry, said, 2, 0) == [role(number) for number in (8, 9)]
    assert removable(registry, said, 12, 99) == []


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    """Three versions: the same model with other manifests is not another version, so they have other weights."""
    pytest.importorskip("onnx")
    from bench.other_model import write_other_model

    found = []
    for seed in (1, 2, 3):
        write_other_model(CHAMPION, tmp_path / str(seed) / "model.onnx", seed=seed)
        found.append(registry.publish(tmp_path / str(seed) / "model.onnx", by="me"))
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes | None]]:
    """What is sent, instead of sending it."""
    messages: list[tuple[str, bytes | None]] = []

    async def send(bootstrap: str, more: list[tuple[str, bytes | None]]) -> None:
        messages.extend(more)

    async def read(bootstrap: str) -> ModelsTopic:
        said = ModelsTopic()
        for key, value in messages:
            said.take(key.encode(), value)
        return said

    monkeypatch.setattr(promotion_module, "send_models", send)
    monkeypatch.setattr(promotion_module, "read_models", read)
    return messages


async def test_the_first_promotion_keeps_what_served_before_to_go_back_to(
    registry: Registry, versions: list[str], sent: list[Any]
) -> None:
    told = {**TOLD, "available": features.NAMES}
    done = await promote(registry, "", versions[0], base=CHAMPION, **told)
    assert done.previous == "lstm/000004-718e0a2ddc1319ff"
    assert Promotion.from_json(dict(sent)["champion"]) == done
    await challenge(registry, "", versions[1], **TOLD)
    await promote(registry, "", versions[1], base=CHAMPION, **told)
    aliases = registry.aliases()
    assert (aliases.champion, aliases.previous, aliases.challengers) == (versions[1], versions[0], ())
    assert sent[-1] == (f"{CHALLENGER_KEY}{versions[1][-16:]}", None)
    back = await rollback(registry, "", **told)
    assert (back.version, back.previous, back.urgent) == (versions[0], versions[1], True)
    with pytest.raises(RegistryError, match="somebody was quicker"):
        await rollback(registry, "", expected=versions[1], **told)


async def test_a_promotion_that_another_one_overtakes_does_not_have_the_last_word(
    registry: Registry, versions: list[str], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = sent

    async def send(bootstrap: str, more: list[tuple[str, bytes | None]]) -> None:
        if not messages:  # while the first is on its way, somebody else promotes
            messages.append(("", b""))
            registry.update(lambda held: dataclasses.replace(held, champion=versions[1]), **TOLD)
        messages.extend(more)

    monkeypatch.setattr(promotion_module, "send_models", send)
    await promote(registry, "", versions[0], **TOLD, available=features.NAMES)
    said = [Promotion.from_json(value or b"").version for key, value in messages if key == "champion"]
    assert said == [versions[0], versions[1]]


async def test_a_registry_that_was_made_anew_goes_on_where_the_topic_is(
    registry: Registry, versions: list[str], sent: list[Any], tmp_path: Path
) -> None:
    sent.append((CHAMPION_KEY, promotion(FIRST, 41).to_json()))
    done = await promote(registry, "", versions[0], **TOLD, available=features.NAMES)
    assert done.generation == registry.aliases().generation == 42


async def test_what_must_not_serve_is_not_promoted(
    registry: Registry, versions: list[str], sent: list[Any], tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "2" / "model.onnx", registry.fetch(versions[0]))
    told = {**TOLD, "available": features.NAMES}
    with pytest.raises(ModelError, match="is damaged"):
        await promote(registry, "", versions[0], **told)
    with pytest.raises(ModelError, match="wants features that we do not have"):
        await promote(registry, "", versions[1], **TOLD, available=features.NAMES[:3])
    with pytest.raises(RegistryError, match="nothing to go back to"):
        await rollback(registry, "", **told)
    assert sent == []
    assert registry.aliases().generation == 0


async def test_the_topic_is_read_as_it_was_written(
    kafka: EmbeddedKafka, registry: Registry, versions: list[str]
) -> None:
    await create_topics(kafka.bootstrap, 4, 1, 24.0)
    done = await promote(registry, kafka.bootstrap, versions[0], **TOLD, available=features.NAMES)
    runs = await challenge(registry, kafka.bootstrap, versions[1], **TOLD)
    gone = await challenge(registry, kafka.bootstrap, versions[2], **TOLD)
    await retire(registry, kafka.bootstrap, versions[2], **TOLD)
    await send_models(kafka.bootstrap, [("worker/test", json.dumps({"champion": versions[0]}).encode())])
    said = await read_models(kafka.bootstrap)
    assert said.champion == done
    assert said.challengers[runs.model_id] == runs
    assert gone.model_id not in said.challengers
    assert said.workers["test"] == {"champion": versions[0]}


async def test_brokers_that_are_away_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=r"cannot read the topic models at 127\.0\.0\.1:1"):
        await read_models("127.0.0.1:1")
    with pytest.raises(ServerError, match="cannot write to the topic models"):
        await send_models("127.0.0.1:1", [])
