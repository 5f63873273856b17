"""A file or a folder is there whole, or not at all; of several who make one, one does."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.store import DirectoryStore, ObjectStore, Store, open_store
from stream.errors import RegistryError, SettingsError


@pytest.fixture(params=["directory", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path) if request.param == "directory" else f"memory://{tmp_path}")


def test_a_url_chooses_the_store_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), DirectoryStore)
    assert isinstance(open_store("memory://registry"), ObjectStore)
    with pytest.raises(SettingsError, match="right would be a directory, or a URL"):
        open_store("nonsense://registry")


def test_what_is_published_can_be_listed_and_read(store: Store) -> None:
    assert store.names("lstm") == []
    store.publish("lstm/000001-a", {"model.onnx": b"model", "model.json": b"{}"})
    assert store.names("lstm") == ["000001-a"]
    assert store.names("lstm/000001-a") == ["model.json", "model.onnx"]
    assert store.read("lstm/000001-a/model.onnx") == b"model"
    with pytest.raises(FileNotFoundError):
        store.read("lstm/000001-a/card.html")


def test_a_version_is_never_written_over(store: Store) -> None:
    store.publish("lstm/000001-a", {"model.onnx": b"model", "model.json": b"{}"})
    with pytest.raises(RegistryError):
        store.publish("lstm/000001-a", {"model.onnx": b"other", "model.json": b"{}"})
    assert store.read("lstm/000001-a/model.onnx") == b"model"


def test_only_one_of_many_makes_a_file(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: store.create("aliases/1.json", str(number).encode()), range(40)))
    assert sum(made) == 1
    assert store.read("aliases/1.json") == str(made.index(True)).encode()


def test_what_is_removed_is_gone(store: Store) -> None:
    store.publish("lstm/000001-a", {"model.onnx": b"model", "model.json": b"{}"})
    store.remove("lstm/000001-a")
    store.remove("lstm/000001-a")
    assert store.names("lstm") == []


def test_only_old_left_overs_are_swept(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for name in ("old", "young"):
        (tmp_path / "lstm" / f".new-{name}").mkdir(parents=True)
        (tmp_path / "lstm" / f".new-{name}" / "model.onnx").write_bytes(b"half")
    long_ago_s = time.time() - 86_400
    os.utime(tmp_path / "lstm" / ".new-old", (long_ago_s, long_ago_s))
    assert store.names("lstm") == []
    assert store.sweep() == 1
    assert [path.name for path in (tmp_path / "lstm").iterdir()] == [".new-young"]


def test_a_store_that_refuses_says_what_and_why(tmp_path: Path) -> None:
    (tmp_path / "lstm").write_bytes(b"a file where a folder should be")
    store = DirectoryStore(tmp_path)
    with pytest.raises(RegistryError, match="cannot write"):
        store.publish("lstm/000001-a", {"model.json": b"{}"})
    with pytest.raises(RegistryError, match="cannot write"):
        store.create("lstm/claims/1", b"")


class Refusing:
    """An object store that takes nothing."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError("access denied")

        return refuse


def test_an_object_store_that_refuses_says_what_and_why() -> None:
    store = ObjectStore(Refusing(), "bucket/models")
    with pytest.raises(RegistryError, match="bucket/models/lstm/x: access denied"):
        store.read("lstm/x")
    with pytest.raises(RegistryError, match="cannot write bucket/models/lstm/x: access denied"):
        store.create("lstm/x", b"")
