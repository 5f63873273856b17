"""Whole retrainings on made-up ticks, in processes that are killed and in this one."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from models.gate import Rules
from models.journal import read_journal
from models.registry import Registry
from models.retrain import Retraining, Run
from models.train import TrainSettings
from stream.errors import SettingsError, SourceError

pytestmark = pytest.mark.train

CHAMPION = Path(__file__).resolve().parents[2] / "models" / "champion" / "model.onnx"
QUIET = Console(quiet=True)
NAMES = ("book_imbalance", "return_1_bps", "volatility_64_bps", "spread_bps")
SETTINGS = TrainSettings(
    units=8, epochs=4, streams=8, steps=32, burn_in=16, feature_names=NAMES, learning_rate=1e-2
)
# Few ticks prove little: what is tested here is the way, and the gate by itself elsewhere.
LENIENT = Rules(level=0.999, calibration_error=1.0)
PATIENCE_S = 90.0

_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_retrain import run_of
run_of(Path(sys.argv[2])).go()
"""


def run_of(root: Path, **chosen: Any) -> Run:
    """The run in a folder that holds its ticks; with what was ``chosen`` otherwise."""
    wanted = Retraining(
        settings=SETTINGS,
        collect=lambda from_ns, to_ns: iter(np.array_split(np.load(root / "ticks.npy"), 3)),
        collected_from="made up",
        days=1.0,
        rules=LENIENT,
    )
    registry = Registry(str(root / "registry"))
    return Run(root / "run", dataclasses.replace(wanted, **chosen), registry, CHAMPION, QUIET)


@pytest.fixture(scope="module")
def ticks(make_ticks: Callable[..., Any]) -> Any:
    pytest.importorskip("tensorflow")
    pytest.importorskip("sklearn")
    made = make_ticks(6000, symbols=2, seed=5)
    for name in ("event_ns", "recv_ns"):
        made[name] += 10**7 * 10**9  # after what the champion was trained on
    return made


@pytest.fixture(scope="module")
def undisturbed(ticks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    np.save(root / "ticks.npy", ticks)
    assert run_of(root).go()["outcome"] == "registered"
    return root


def steps_of(root: Path) -> dict[str, Any]:
    steps: dict[str, Any] = read_journal(root / "run")["steps"]
    return steps


def kill_once(root: Path, there_is: Callable[[], bool]) -> None:
    """Start the run in a process of its own and kill it as soon as it has come to a point."""
    arguments = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(root)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as child:
        deadline_s = time.monotonic() + PATIENCE_S
        while not there_is():
            assert child.poll() is None  # pytest shows what it said
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        child.kill()
        child.wait()
        assert child.returncode == -signal.SIGKILL


def test_a_run_killed_twice_ends_with_the_model_of_an_undisturbed_one(
    undisturbed: Path, ticks: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "ticks.npy", ticks)
    run = tmp_path / "run"
    kill_once(tmp_path, lambda: any((run / "checkpoints").glob("*.npz")))
    assert list(steps_of(tmp_path)) == ["collect"]
    (tmp_path / "ticks.npy").rename(tmp_path / "gone.npy")  # what was collected is not asked for again
    kill_once(tmp_path, lambda: any(run.glob("fold-1/*/answers.npy")))
    assert list(steps_of(tmp_path)) == ["collect", "train"]
    collected = steps_of(tmp_path)["collect"]
    end = run_of(tmp_path).go()
    assert end["outcome"] == "registered"
    mine, theirs = steps_of(tmp_path), steps_of(undisturbed)
    assert mine["collect"] == collected
    assert mine["train"]["model_id"] == theirs["train"]["model_id"]
    assert mine["gate"]["reasons"] == theirs["gate"]["reasons"]
    assert mine["register"]["version"] == theirs["register"]["version"]
    cards = [json.loads((root / "run" / "card.json").read_text()) for root in (tmp_path, undisturbed)]
    assert cards[0]["comparisons"] == cards[1]["comparisons"]


def test_what_passes_is_registered_with_its_card_and_the_folder_keeps_no_ticks(undisturbed: Path) -> None:
    registry = Registry(str(undisturbed / "registry"))
    (version,) = registry.versions()
    card = registry.card(version)
    assert card is not None
    assert {each["name"] for each in card["forecasters"]} > {"majority"}
    assert sum(not each["baseline"] for each in card["forecasters"]) == 2  # it, and the one in service
    left = {path.name for path in (undisturbed / "run").iterdir()}
    assert left == {"card.html", "card.json", "journal.json", "model.json", "model.onnx", "plan.json"}


def test_a_run_that_is_done_is_not_done_again(undisturbed: Path) -> None:
    before = steps_of(undisturbed)
    assert run_of(undisturbed).go() == before["end"]
    assert steps_of(undisturbed) == before


@pytest.fixture
def judged(undisturbed: Path, tmp_path: Path) -> Path:
    """A run that is judged, and has not come to the gate."""
    (tmp_path / "run").mkdir()
    for path in (undisturbed / "run").iterdir():
        (tmp_path / "run" / path.name).write_bytes(path.read_bytes())
    journal = tmp_path / "run" / "journal.json"
    said = json.loads(journal.read_text())
    said["steps"] = {step: said["steps"][step] for step in ("collect", "train", "judge")}
    journal.write_text(json.dumps(said))
    return tmp_path


def ask_for(root: Path, rules: Rules) -> Run:
    journal = root / "run" / "journal.json"
    said = json.loads(journal.read_text())
    said["plan"]["asked"]["rules"] = dataclasses.asdict(rules)
    journal.write_text(json.dumps(said))
    return run_of(root, rules=rules)


def test_what_does_not_pass_is_not_registered_and_the_journal_says_why(judged: Path) -> None:
    end = ask_for(judged, Rules(level=1e-300, calibration_error=1.0)).go()
    assert end["outcome"] == "refused"
    assert "asked for is less with p < 1e-300" in end["reason"]
    assert "register" not in steps_of(judged)
    assert Registry(str(judged / "registry")).versions() == []


def test_a_model_that_was_damaged_after_it_was_judged_is_refused(judged: Path) -> None:
    model = judged / "run" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    end = run_of(judged).go()
    assert end["outcome"] == "refused"
    assert "model.onnx" in end["reason"]


def test_a_run_is_not_gone_on_with_by_other_settings(undisturbed: Path) -> None:
    with pytest.raises(SettingsError, match="begun with other days"):
        run_of(undisturbed, days=2.0).go()


def test_no_ticks_are_an_error_that_can_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no ticks in made up"):
        run_of(tmp_path, collect=lambda from_ns, to_ns: iter(())).go()
    assert steps_of(tmp_path) == {}
