import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from models.contenders import Contender
from models.dataset import HistoryRows, Labels, history, label
from models.evaluate import Plan, cut, evaluate, evaluate_recording
from models.splits import Split, walk_forward
from models.train import TrainSettings
from stream.errors import SettingsError

pytest.importorskip("sklearn")

SETTINGS = TrainSettings(
    horizon_s=5.0,
    units=8,
    epochs=2,
    streams=8,
    steps=32,
    burn_in=16,
    feature_names=("book_imbalance", "return_1_bps", "volatility_64_bps"),
)
PLAN = Plan(SETTINGS, seeds=2)
QUIET = Console(quiet=True)
DAY_NS = 86_400_000_000_000


@pytest.fixture(scope="module")
def ticks(make_ticks: Callable[..., Any]) -> Any:
    """Three UTC days of 4,000 ticks, each an hour or so of its morning."""
    made = make_ticks(12_000, symbols=2, seed=6)
    start = made["event_ns"][0] // DAY_NS * DAY_NS
    for day in range(3):
        some = slice(4000 * day, 4000 * (day + 1))
        for name in ("event_ns", "recv_ns"):
            made[name][some] += start + day * DAY_NS + 30_000_000_000_000 - made["event_ns"][some][0]
    return made


@pytest.fixture(scope="module")
def recording(ticks: Any) -> tuple[HistoryRows, Labels, tuple[Split, ...]]:
    rows = history(ticks, 5_000_000_000)
    labels = label(rows, 5_000_000_000, 1.0, 50.0)
    return rows, labels, walk_forward(rows, labels)


class _Pretender:
    """Learns nothing, quickly, and remembers what it was asked; answers are told apart by seed and row."""

    def __init__(self, rows: HistoryRows, fails_at: int | None = None) -> None:
        self.rows, self.fails_at, self.asked = rows, fails_at, []  # type: ignore[var-annotated]

    def contender(self, seeds: int = 2, **about: Any) -> Contender:
        return Contender("lstm", "a pretender", range(7, 7 + seeds), self.learn, about)

    def learn(self, split: Split, seed: int, place: Path) -> Any:
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append((split.test_ns, seed, place.is_dir()))
        answers = np.full((split.test.sum(), 4), 1 / 3, np.float32)
        answers[:, 3] = self.rows.features[split.test, 11] * seed
        return answers


def run(recording: Any, contender: Contender, out: Path, plan: Plan = PLAN) -> Any:
    rows, labels, folds = recording
    return evaluate(rows, labels, folds, plan, [contender], out, QUIET)


def test_every_fold_and_seed_is_trained_and_judged_beside_every_baseline(recording: Any, tmp_path: Path) -> None:
    rows, _, folds = recording
    learn = _Pretender(rows)
    card = run(recording, learn.contender(), tmp_path)
    assert learn.asked == [(fold.test_ns, seed, True) for seed in (7, 8) for fold in folds]
    assert len(folds) == 2
    names = ["majority", "last return", "EWMA", "logistic, order flow", "logistic", "boosted trees", "lstm"]
    assert [each["name"] for each in card["forecasters"]] == names
    assert [each["seeds"] for each in card["forecasters"]] == [1] * 6 + [2]
    assert card["slices"][0]["rows"] == sum(int(fold.test.sum()) for fold in folds)
    assert card["forecasters"][-1]["scores"][0]["mean"]["log_loss"] == pytest.approx(np.log(3), abs=1e-6)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    assert (tmp_path / "card.html").read_text().startswith("<!doctype html>")
    assert card["models"][0]["seeds"] == [7, 8]
    assert len(card["data_sha256"]) == 64


def test_what_was_done_is_not_done_again_and_the_outcome_is_the_same(recording: Any, tmp_path: Path) -> None:
    rows, _, _ = recording
    whole = run(recording, _Pretender(rows).contender(), tmp_path / "whole")
    stopped = _Pretender(rows, fails_at=3)
    with pytest.raises(KeyboardInterrupt):
        run(recording, stopped.contender(), tmp_path / "stopped")
    going_on = _Pretender(rows)
    card = run(recording, going_on.contender(), tmp_path / "stopped")
    assert len(stopped.asked) == 3
    assert len(going_on.asked) == 1
    assert card == whole


def test_a_directory_holds_one_evaluation(recording: Any, tmp_path: Path) -> None:
    rows, _, _ = recording
    run(recording, _Pretender(rows).contender(seeds=1, units=8), tmp_path)
    with pytest.raises(SettingsError, match="holds another evaluation: models differ; right would be"):
        run(recording, _Pretender(rows).contender(seeds=1, units=16), tmp_path)
    plan = Plan(dataclasses.replace(SETTINGS, feature_names=("book_imbalance",)))
    with pytest.raises(SettingsError, match="holds another evaluation: features differ"):
        run(recording, _Pretender(rows).contender(seeds=1, units=8), tmp_path, plan)


def test_a_plan_without_seeds_is_refused() -> None:
    for wrong in ({"seeds": 0}, {"fee_bps": -1.0}, {"fee_bps": np.nan}, {"unknown_cost_bps": -1.0}):
        plan = Plan(SETTINGS, **wrong)
        with pytest.raises(SettingsError, match="right would be 1 or more, and 0 or more"):
            plan.check()


def test_folds_are_days_the_last_day_or_a_share(recording: Any) -> None:
    rows, labels, days = recording
    days = cut(rows, labels, dataclasses.replace(PLAN, folds="days"))
    assert len(days) == 2
    (last,) = cut(rows, labels, dataclasses.replace(PLAN, folds="last"))
    assert (last.test == days[1].test).all()
    (share,) = cut(rows, labels, dataclasses.replace(PLAN, folds="shares"))
    assert share.test.mean() == pytest.approx(SETTINGS.held_out_share, abs=0.01)


@pytest.mark.train
def test_the_lstm_is_judged_by_the_very_file_that_would_serve(ticks: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from models.metrics import serve
    from models.predictor import load_predictor

    plan = Plan(dataclasses.replace(SETTINGS, epochs=1), folds="last", seeds=1)
    evaluate_recording(ticks, plan, tmp_path, QUIET)
    place = tmp_path / "fold-1" / "lstm-7"
    rows = history(ticks, 5_000_000_000)
    labels = label(rows, 5_000_000_000, 1.0, 50.0)
    (split,) = cut(rows, labels, plan)
    # By hand: the validation span and the day that is judged, one step at a time.
    later = rows.event_ns >= split.validation_ns
    recent = dataclasses.replace(rows, features=rows.features[later], symbol_row=rows.symbol_row[later])
    answers = serve(load_predictor(place / "model.onnx"), recent)[split.test[later]]
    assert np.load(place / "answers.npy").tobytes() == answers.tobytes()
