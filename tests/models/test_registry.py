"""Versions are immutable and whole, roles change one after the other, and nothing hostile gets in."""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import store as store_module
from models.artifact import load
from models.registry import Aliases, Registry, Version
from stream.errors import ModelError, RegistryError

CHAMPION = Path(__file__).resolve().parents[2] / "models" / "champion" / "model.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in a folder of its own, with a card."""
    folder = tmp_path / "trained"
    folder.mkdir()
    for name in ("model.onnx", "model.json"):
        shutil.copy(CHAMPION.with_name(name), folder / name)
    (folder / "card.json").write_text(json.dumps({"verdict": "it depends"}))
    return folder / "model.onnx"


@pytest.fixture(params=["directory", "objects"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    url = str(tmp_path / "registry") if request.param == "directory" else f"memory://{tmp_path}/registry"
    return Registry(url, tmp_path / "cache")


def test_a_published_model_comes_back_to_the_byte(registry: Registry, model: Path) -> None:
    version = registry.publish(model, by="me", clock=lambda: 5)
    assert version == "lstm/000001-718e0a2ddc1319ff"
    assert registry.versions() == [version]
    artifact = load(registry.fetch(version))
    assert f"{artifact.card.model_id:016x}" == "718e0a2ddc1319ff"
    assert registry.fetch(version).read_bytes() == model.read_bytes()
    manifest = registry.manifest(version)
    assert (manifest["published_ns"], manifest["published_by"], manifest["sha256"]) == (5, "me", artifact.sha256)
    assert registry.card(version) == {"verdict": "it depends"}


def test_the_same_file_is_published_once(registry: Registry, model: Path) -> None:
    assert registry.publish(model, by="me") == registry.publish(model, by="you")
    assert len(registry.versions()) == 1


def test_a_version_is_found_by_what_people_call_it(registry: Registry, model: Path) -> None:
    version = registry.publish(model, by="me")
    registry.update(lambda held: dataclasses.replace(held, champion=version), reason="first", by="me")
    for text in (version, "1", "000001", "718e", "lstm", "champion"):
        assert registry.resolve(text) == version
    for text in ("2", "7", "gru", "718f", "previous"):
        with pytest.raises(RegistryError):
            registry.resolve(text)


@pytest.mark.parametrize(
    "text",
    [
        "../../etc/passwd",
        "lstm/000001-718E0A2DDC1319FF",
        "lstm/1-718e0a2ddc1319ff",
        "/x/000001-718e0a2ddc1319ff",
        "",
    ],
)
def test_no_path_passes_for_a_version(registry: Registry, text: str) -> None:
    for asked in (registry.fetch, registry.manifest, registry.remove):
        with pytest.raises(RegistryError, match="names no version"):
            asked(text)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20_000] ^= 4
    path.write_bytes(data)


def _no_manifest(path: Path) -> None:
    path.with_name("model.json").unlink()


def _other_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"macd_bps", b"macd_xyz"))


@pytest.mark.parametrize("harm", [_truncate, _flip, _no_manifest, _other_name])
def test_what_must_not_serve_is_not_published(
    registry: Registry, model: Path, harm: Callable[[Path], None]
) -> None:
    harm(model)
    with pytest.raises(ModelError):
        registry.publish(model, by="me")
    assert registry.versions() == []


@pytest.mark.parametrize("harm", [_truncate, _flip, _no_manifest])
def test_what_is_damaged_in_the_registry_does_not_load(model: Path, tmp_path: Path, harm: Any) -> None:
    registry = Registry(str(tmp_path / "registry"))
    version = registry.publish(model, by="me")
    harm(registry.fetch(version))
    with pytest.raises(ModelError):
        load(registry.fetch(version))


class Crash(BaseException):
    """The process is gone."""


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """``crash_at(n)``: the n-th write, sync or rename from now on is the last thing that happens."""
    left = [10**9]

    def one_less() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crash

    write, sync, rename = store_module._write, store_module._sync_folder, Path.rename

    def half_write(path: Path, data: bytes) -> None:
        if left[0] <= 0:
            write(path, data[: len(data) // 2])
        one_less()
        write(path, data)

    monkeypatch.setattr(store_module, "_write", half_write)
    monkeypatch.setattr(store_module, "_sync_folder", lambda path: (one_less(), sync(path)))
    monkeypatch.setattr(Path, "rename", lambda path, target: (one_less(), rename(path, target)))
    yield lambda steps: left.__setitem__(0, steps)
    left[0] = 10**9


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(0, 14), min_size=1, max_size=3))
def test_a_publication_that_is_cut_off_anywhere_leaves_a_whole_version_or_none(
    steps: list[int], model: Path, tmp_path_factory: pytest.TempPathFactory, crash_at: Callable[[int], None]
) -> None:
    root = tmp_path_factory.mktemp("registry")
    for step in steps:
        crash_at(step)
        with contextlib.suppress(Crash):
            Registry(str(root)).publish(model, by="me")
        crash_at(10**9)
        for version in Registry(str(root)).versions():
            load(Registry(str(root)).fetch(version))
            assert Registry(str(root)).card(version) == {"verdict": "it depends"}
    version = Registry(str(root)).publish(model, by="me")
    assert Registry(str(root)).versions() == [version]


def test_an_interrupted_upload_does_not_exist(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(f"memory://{tmp_path}/cut", tmp_path / "cache")
    create = store_module.ObjectStore.create

    def cut_off(self: Any, path: str, data: bytes) -> bool:
        if path.endswith("model.json"):
            raise Crash
        return create(self, path, data)

    with monkeypatch.context() as patched:
        patched.setattr(store_module.ObjectStore, "create", cut_off)
        with pytest.raises(Crash):
            registry.publish(model, by="me")
    assert registry.versions() == []
    # The number was taken by it, and is not used again.
    assert registry.publish(model, by="me") == "lstm/000002-718e0a2ddc1319ff"


def test_of_many_who_change_roles_at_once_each_sees_what_those_before_it_did(registry: Registry) -> None:
    def join(number: int) -> Aliases:
        return registry.update(
            lambda held: dataclasses.replace(held, challengers=(*held.challengers, f"m{number}")),
            reason=f"number {number}",
            by="me",
        )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(join, range(12)))
    assert sorted(registry.aliases().challengers) == sorted(f"m{number}" for number in range(12))
    history = registry.history()
    assert [each.generation for each in history] == list(range(1, 13))
    for before, after in itertools.pairwise(history):
        assert after.challengers[:-1] == before.challengers


def test_a_version_with_a_role_is_not_removed(registry: Registry, model: Path) -> None:
    version = registry.publish(model, by="me")
    registry.update(lambda held: dataclasses.replace(held, previous=version), reason="first", by="me")
    with pytest.raises(RegistryError, match="has a role"):
        registry.remove(version)
    registry.update(lambda held: dataclasses.replace(held, previous=None), reason="first", by="me")
    registry.remove(version)
    assert registry.versions() == []


def test_a_registry_without_anything_has_no_roles(registry: Registry) -> None:
    assert registry.aliases() == Aliases()
    assert registry.history() == []
    assert registry.versions() == []


def test_roles_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    (tmp_path / "aliases").mkdir()
    (tmp_path / "aliases" / "00000001.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"aliases/00000001.json of .* cannot be read"):
        registry.aliases()


def test_a_version_is_its_name() -> None:
    text = "momentum-10s/000042-00ff00ff00ff00ff"
    assert Version.parse(text) == Version("momentum-10s", 42, 0x00FF00FF00FF00FF)
    assert str(Version.parse(text)) == text


def test_an_attempt_at_a_night_is_had_by_one_of_many_and_a_night_that_is_done_says_so(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    assert registry.attempts("2026-11-25") == (0, False)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: registry.claim_night("2026-11-25", 1, f"worker-{n}"), range(8)))
    assert won.count(True) == 1
    assert registry.claim_night("2026-11-25", 2, "worker-1")
    assert registry.attempts("2026-11-25") == (2, False)
    registry.close_night("2026-11-25", "worker-1")
    assert registry.attempts("2026-11-25") == (2, True)
    assert registry.attempts("2026-11-26") == (0, False)
    assert registry.versions() == []
