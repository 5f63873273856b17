import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.registry import Aliases, Registry
from stream.settings import Settings

CHAMPION = Settings().model


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A published version with cards that is champion, and the registry's folder."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("model.onnx", "model.json"):
        shutil.copy(CHAMPION.with_name(name), folder / name)
    (folder / "card.json").write_text(json.dumps({"verdicts": [{"words": "it is worth little"}]}))
    (folder / "card.html").write_text("<!doctype html><title>Model card</title><style>h1{color:red}</style>")
    registry = Registry(str(folder / "registry"))
    published = registry.publish(folder / "model.onnx", by="a test")
    registry.update(lambda held: Aliases(champion=published), reason="it is the first", by="a test")
    return published, folder / "registry"


@pytest.fixture(scope="module")
def with_models(filled: Settings, version: tuple[str, Path], run_api: Any) -> Any:
    with run_api(filled.model_copy(update={"registry": str(version[1])})) as api:
        yield api


def test_versions_are_listed_with_their_roles(with_models: Any, version: tuple[str, Path]) -> None:
    answer = with_models.get("/v1/models").json
    assert answer["champion"] == version[0]
    [only] = answer["data"]
    assert (only["version"], only["roles"], only["has_card"]) == (version[0], ["champion"], True)
    assert only["published_by"] == "a test"


@pytest.mark.parametrize("which", ["champion", "lstm", "718e0a2ddc1319ff", "1"])
def test_a_version_is_found_by_role_name_model_and_number(
    with_models: Any, version: tuple[str, Path], which: str
) -> None:
    for name in (which, version[0]):
        model = with_models.get(f"/v1/models/{name}").json
        assert model["version"] == version[0]
        assert model["manifest"]["sha256"] == json.loads(CHAMPION.with_name("model.json").read_text())["sha256"]
        assert model["history"][0]["reason"] == "it is the first"


def test_a_card_is_json_for_programs_and_a_page_that_runs_nothing_for_people(with_models: Any) -> None:
    card = with_models.get("/v1/models/champion/card")
    assert card.json["verdicts"][0]["words"] == "it is worth little"
    page = with_models.get("/v1/models/champion/card", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    assert b"Model card" in page.body
    assert "sandbox" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]


def test_the_model_that_serves_where_nobody_was_promoted_is_known_too(api: Any) -> None:
    for which in ("default", "718e0a2ddc1319ff"):
        model = api.get(f"/v1/models/{which}").json
        assert (model["version"], model["roles"]) == (None, ["default"])
        assert model["horizon_ns"] == 10_000_000_000


@pytest.mark.parametrize(
    "which", ["nobody", "previous", "../../etc/passwd", "lstm/../../x", "lstm/999999-718e0a2ddc1319ff"]
)
def test_what_is_no_version_is_not_found(with_models: Any, which: str) -> None:
    for path in (f"/v1/models/{which}", f"/v1/models/{which}/card"):
        reply = with_models.get(path)
        assert (reply.status, reply.json["code"]) == (404, "not-found"), path
