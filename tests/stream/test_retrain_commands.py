import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.journal import Journal
from stream.retrain_commands import _next_run
from stream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def tickloom(root: Path, *arguments: str) -> Any:
    environment = {**os.environ, "TICKLOOM_DATA_DIR": str(root), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stream", "retrain", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_runs_are_shown_with_how_far_they_are_and_how_they_ended(tmp_path: Path) -> None:
    Journal(tmp_path / "retrain" / "2026-11-24").finish("end", outcome="refused", reason="it is not better")
    Journal(tmp_path / "retrain" / "2026-11-25").finish("train", model_id="0123456789abcdef", parity=1e-7)
    done = tickloom(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert (first["run"], first["outcome"], first["reason"]) == ("2026-11-24", "refused", "it is not better")
    assert (second["last step"], second["model"], second["outcome"]) == (
        "train",
        "0123456789abcdef",
        "not finished",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--now"], "on which ticks"),
        (["--now", "--ticks", "x", "--run", "../elsewhere"], "right would be a name such as"),
    ],
)
def test_what_is_not_clear_is_refused_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = tickloom(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_run_by_hand_goes_on_with_an_unfinished_one_of_today(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = _next_run(settings)
    assert first.endswith("-by-hand-1")
    journal = Journal(tmp_path / "retrain" / first)
    journal.finish("collect", ticks=1)
    assert _next_run(settings) == first
    journal.finish("end", outcome="refused", reason="it is not better")
    assert _next_run(settings).endswith("-by-hand-2")


def test_a_retraining_computes_only_when_nobody_else_wants_to() -> None:
    script = (
        "import os; from stream.retrain_commands import _yield_to_others as f; f(); "
        "print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0), os.environ['OMP_NUM_THREADS'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert said.split() == ["True", "19", "1"]
