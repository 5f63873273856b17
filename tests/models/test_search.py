import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from models.search import BEST, Budget, Found, Space, search
from models.settings_file import read_train_settings
from models.train import TrainSettings
from stream.errors import ModelError, SettingsError

BASE = TrainSettings(seed=3)
SPACE = Space(horizons_s=(1.0, 10.0))
TRIALS = 16
SUBJECT = {"data_sha256": "ab"}


def pretended(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
    """A skill that has its peak at known settings, and gets there over four epochs."""
    skill = 0.1 - 0.02 * abs(settings.layers * settings.units - 32) / 32 - 5.0 * abs(settings.learning_rate - 4e-3)
    skill -= 0.02 * (settings.horizon_s != 10.0) + 0.02 * ("bar_1s_rsi_14" in settings.feature_names)
    for epoch in range(4):
        on_epoch(skill * (epoch + 1) / 4)
    return skill


def searched(out: Path, trials: int = TRIALS, judge: Any = pretended, **changes: Any) -> Found:
    given: dict[str, Any] = {"base": BASE, "space": SPACE, "subject": SUBJECT, **changes}
    return search(judge, given["base"], given["space"], Budget(trials), out, given["subject"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Found:
    pytest.importorskip("optuna")
    return searched(tmp_path_factory.mktemp("whole"))


@pytest.mark.train
def test_a_search_finds_what_is_better_than_chance_finds(whole: Found) -> None:
    skills = [trial["skill"] for trial in whole.trials if trial["skill"] is not None]
    random = [trial["skill"] for trial in whole.trials[:10] if trial["skill"] is not None]
    assert whole.skill == max(skills) > max(random)
    assert whole.best["horizon_s"] == 10.0
    best = read_train_settings(whole.path)
    assert pretended(best, lambda skill: None) == whole.skill
    assert best.seed == BASE.seed


@pytest.mark.train
def test_trials_that_fall_behind_are_cut_short(whole: Found) -> None:
    short = [trial for trial in whole.trials if trial["skill"] is None]
    assert 1 <= len(short) < len(whole.trials) - 5
    assert len(whole.trials) == TRIALS
    console = Console(record=True, width=160)
    console.print(whole.table())
    text = console.export_text()
    assert f"{whole.skill:.4f}" in text
    assert f"{len(short)} of them cut short" in text


@pytest.mark.train
def test_every_trial_could_serve(whole: Found) -> None:
    from optuna.trial import FixedTrial

    for trial in whole.trials:
        settings = SPACE.suggest(FixedTrial(trial["settings"]), BASE)
        settings.check()
        assert settings.layers * settings.units <= MODEL_STATE_FLOATS
        assert "book_imbalance" in settings.feature_names
        places = features.indices(settings.feature_names)
        assert places == sorted(places)


CHILD = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import test_search as t

def slow(settings, on_epoch):
    time.sleep(0.05)
    return t.pretended(settings, on_epoch)

t.searched(Path(sys.argv[1]), judge=slow)
"""


@pytest.mark.train
def test_a_killed_search_goes_on_with_the_trials_that_it_would_have_made(whole: Found, tmp_path: Path) -> None:
    from optuna import load_study

    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(root), str(Path(__file__).parent)]
    child = subprocess.Popen(command)
    try:
        deadline_s = time.monotonic() + 60.0
        while not (tmp_path / BEST).exists():
            assert child.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    storage = f"sqlite:///{tmp_path / 'search.sqlite3'}"
    before = len(load_study(study_name="tickloom", storage=storage).trials)
    assert 0 < before < TRIALS
    again = searched(tmp_path)
    assert len(again.trials) == TRIALS
    assert [trial["settings"] for trial in again.trials] == [trial["settings"] for trial in whole.trials]
    assert [trial["skill"] for trial in again.trials] == [trial["skill"] for trial in whole.trials]
    assert again.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.train
def test_a_search_that_is_done_tries_nothing_more(whole: Found) -> None:
    def never(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        raise AssertionError

    assert searched(whole.path.parent, judge=never) == whole


@pytest.mark.train
def test_a_directory_with_a_search_on_something_else_is_refused(whole: Found) -> None:
    out = whole.path.parent
    with pytest.raises(SettingsError, match="holds a search with other data_sha256; right would be"):
        searched(out, subject={"data_sha256": "cd"})
    with pytest.raises(SettingsError, match="other base"):
        searched(out, base=dataclasses.replace(BASE, epochs=3))
    with pytest.raises(SettingsError, match="other space"):
        searched(out, space=Space(horizons_s=(5.0,)))


@pytest.mark.train
def test_two_searches_do_not_share_a_directory(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    def nested(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        searched(tmp_path)
        return 0.0

    with pytest.raises(SettingsError, match="another search is at work"):
        searched(tmp_path, judge=nested)


@pytest.mark.train
def test_a_search_stops_when_its_time_is_up_and_keeps_what_it_has(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    def slow(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        time.sleep(0.1)
        return pretended(settings, on_epoch)

    found = search(slow, BASE, SPACE, Budget(10_000, seconds=1.5), tmp_path, SUBJECT)
    assert 1 <= len(found.trials) <= 15
    assert read_train_settings(found.path).horizon_s == found.best["horizon_s"]


@pytest.mark.train
def test_settings_that_cannot_be_trained_cost_a_trial_and_not_the_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    def fragile(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        if settings.layers == 1:
            raise ModelError("training diverged")
        return pretended(settings, on_epoch)

    found = searched(tmp_path / "some", trials=10, judge=fragile)
    assert len(found.trials) == 10
    assert any(trial["error"] == "training diverged" for trial in found.trials)
    assert read_train_settings(found.path).layers > 1

    def hopeless(settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        raise ModelError("training diverged")

    with pytest.raises(ModelError, match="3 trials, none of them whole: training diverged"):
        searched(tmp_path / "none", trials=3, judge=hopeless)


def test_a_search_without_optuna_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingsError, match=r"a search needs optuna.*uv sync --extra train"):
        searched(tmp_path)


@pytest.mark.train
def test_what_was_found_can_be_printed_for_machines(whole: Found) -> None:
    told = json.loads(json.dumps(dataclasses.asdict(whole), default=str))
    assert told["skill"] == whole.skill
    assert len(told["trials"]) == TRIALS
