"""Walk-forward evaluation: folds x seeds of a model and every baseline, judged on spans that none of them has seen.

What is done is kept under ``out``: an evaluation that was killed goes on where it stopped.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from rich.console import Console

from agents import features
from models.baselines import MOST_FITTED_ROWS, Baseline, baselines, forecast
from models.dataset import HistoryRows, Labels, history, label
from models.export import code_version, library_versions
from models.judged import Judged, judged_rows
from models.judgement import Forecaster, judge
from models.lstm import start_tensorflow
from models.metrics import Answers, serve
from models.model_card_page import page
from models.predictor import load_predictor
from models.scores import log_losses
from models.splits import Split, by_shares, walk_forward
from models.train import TrainSettings, fit, write_trained
from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.records import Records

CARD: Final = "card.json"
PAGE: Final = "card.html"
_PLAN: Final = "plan.json"

# A split, settings with their seed, and a directory of its own -> float32[J, 4] for the J rows of the split's test.
Learn = Callable[[Split, TrainSettings, Path], Answers]


@dataclass(frozen=True)
class Plan:
    """What shall be evaluated."""

    settings: TrainSettings  # its seed is that of the first of the trainings
    folds: Literal["days", "last", "shares"] = "days"  # judge each day but the first, the last one, a share of rows
    seeds: int = 5
    fee_bps: float = 0.0  # of each order

    def check(self) -> None:
        """Check it.

        Raises:
            SettingsError: nothing to evaluate.
        """
        if self.seeds < 1 or not 0.0 <= self.fee_bps < np.inf:
            raise SettingsError(
                f"{self.seeds} seeds and a fee of {self.fee_bps} bps; right would be 1 or more, and 0 or more"
            )


def evaluate_recording(
    ticks: Records | Iterable[Records], plan: Plan, out: Path, console: Console
) -> dict[str, Any]:
    """Do everything, from a recording to its model card.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks.
        plan: what shall be evaluated.
        out: see `evaluate`.
        console: likewise.

    Raises:
        SettingsError: as `evaluate`; or the training set is not installed.
        ModelError: too little data, or a training failed.
    """
    plan.check()
    _need_scikit_learn()
    start_tensorflow()  # before the work, if it is not there
    settings = plan.settings
    settings.check()
    lateness_ns = round(settings.lateness_s * NS_PER_S)
    rows = history(ticks, lateness_ns, settings.periods, settings.outlier_bps, settings.outlier_scale)
    labels = label(rows, settings.horizon, settings.dead_band_bps, settings.clip_bps)
    console.print(f"{len(rows.event_ns):,} rows of {', '.join(rows.symbols)}; {labels.known.sum():,} with a label")
    learn = lstm_learner(rows, labels, console)
    return evaluate(rows, labels, cut(rows, labels, plan), plan, learn, out, console)


def cut(rows: HistoryRows, labels: Labels, plan: Plan) -> tuple[Split, ...]:
    """Return the folds of a plan.

    Raises:
        ModelError: too little data.
    """
    settings = plan.settings
    embargo_ns = round(settings.embargo_s * NS_PER_S)
    if plan.folds == "shares":
        return (by_shares(rows, labels, settings.validation_share, settings.held_out_share, embargo_ns),)
    folds = walk_forward(rows, labels, settings.validation_share, embargo_ns)
    return folds[-1:] if plan.folds == "last" else folds


def evaluate(
    rows: HistoryRows,
    labels: Labels,
    folds: Sequence[Split],
    plan: Plan,
    learn: Learn,
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Train and judge everything, and write ``card.json`` and ``card.html``; return the card.

    Args:
        rows: A rows, with all features.
        labels: of them.
        folds: see `models.splits`; their test spans do not overlap.
        plan: what shall be evaluated.
        learn: trains the model of a fold and seed, and answers its test rows in serving mode.
        out: directory of the card and of what is kept of an evaluation that is not done.
        console: where to say what is done.

    Raises:
        SettingsError: ``out`` holds another evaluation, or scikit-learn is not installed.
        ModelError: nothing to judge by.
    """
    plan.check()
    _need_scikit_learn()
    judged = judged_rows(rows, labels, folds, plan.settings.periods)
    about = _about(rows, folds, plan)
    work = _Work(out, about, judged, folds, console)
    forecasters = [*_baselines(rows, labels, plan.settings, work), _model(plan, learn, work)]
    card = judge(judged, forecasters, about, plan.fee_bps)
    _write(out / CARD, json.dumps(card))
    _write(out / PAGE, page(card))
    return card


class _Work:
    """Answers by forecaster, seed and fold, made once and kept in files."""

    def __init__(
        self,
        out: Path,
        about: dict[str, Any],
        judged: Judged,
        folds: Sequence[Split],
        console: Console,
    ) -> None:
        self.judged = judged
        self._out, self._folds, self._console = out, folds, console
        # As JSON gives it back: tuples are lists.
        mine = json.loads(json.dumps(about))
        out.mkdir(parents=True, exist_ok=True)
        plan = out / _PLAN
        if plan.exists() and (theirs := json.loads(plan.read_text("utf-8"))) != mine:
            different = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
            raise SettingsError(
                f"{out} holds another evaluation: {', '.join(different)} differ; right would be a directory of its "
                "own for each"
            )
        _write(plan, json.dumps(mine))

    def answers(self, name: str, seed: int, make: Callable[[Split, Path], Answers]) -> Answers:
        """Return the answers to all judged rows, ``float32[J, 4]``, fold by fold as far as they are not there."""
        everywhere = np.empty((len(self.judged.index), 4), np.float32)
        for number, split in enumerate(self._folds):
            place = self._out / f"fold-{number + 1}" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            kept = place / "answers.npy"
            started_s = time.monotonic()
            known = kept.exists()
            if not known:
                place.mkdir(parents=True, exist_ok=True)
                _save(kept, make(split, place))
            found = np.load(kept)
            mine = self.judged.fold == number
            # Answers are in the order of the rows of history; what is judged is in that of event time.
            everywhere[mine] = found[np.searchsorted(np.flatnonzero(split.test), self.judged.index[mine])]
            loss = log_losses(everywhere[mine, :3].astype(np.float64), self.judged.direction[mine]).mean()
            how = "kept" if known else f"{time.monotonic() - started_s:.0f} s"
            self._console.print(
                f"fold {number + 1} of {len(self._folds)}, {name}, seed {seed}: log loss {loss:.4f} ({how})"
            )
        return everywhere


def _baselines(rows: HistoryRows, labels: Labels, settings: TrainSettings, work: _Work) -> Iterator[Forecaster]:
    available = features.names(settings.periods)
    for baseline in baselines(settings.feature_names, settings.periods, work.judged.horizon_ns):

        def make(split: Split, _: Path, baseline: Baseline = baseline) -> Answers:
            return forecast(baseline, rows, labels, split, available)

        yield Forecaster(baseline.name, baseline.what, True, [work.answers(baseline.name, 0, make)])


def _model(plan: Plan, learn: Learn, work: _Work) -> Forecaster:
    first, answers = plan.settings, []
    for seed in range(first.seed, first.seed + plan.seeds):
        settings = dataclasses.replace(first, seed=seed)

        def make(split: Split, place: Path, settings: TrainSettings = settings) -> Answers:
            return learn(split, settings, place)

        answers.append(work.answers(first.name, seed, make))
    what = (
        f"LSTM of {first.layers} x {first.units} units on {len(first.feature_names)} features, all symbols in one"
    )
    return Forecaster(first.name, what, False, answers)


def lstm_learner(rows: HistoryRows, labels: Labels, console: Console) -> Learn:
    """Return what trains the LSTM of a fold and a seed, and answers as the engine would: from the exported file.

    Args:
        rows: A rows, with all features.
        labels: of them.
        console: where to show the epochs.
    """

    def learn(split: Split, settings: TrainSettings, place: Path) -> Answers:
        fitted = fit(rows, labels, split, settings, console=console)
        model = place / "model.onnx"
        write_trained(fitted, rows, labels, split, settings, model)
        # From the validation span on: it builds the state up that the test span starts with, as live.
        served = (rows.event_ns >= split.validation_ns) & (rows.event_ns < split.to_ns)
        recent = dataclasses.replace(
            rows,
            features=rows.features[served],
            symbol_row=rows.symbol_row[served],
            event_ns=rows.event_ns[served],
            ref_price=rows.ref_price[served],
        )
        predictor = load_predictor(model, available=features.names(settings.periods))
        return serve(predictor, recent)[split.test[served]]

    return learn


def _about(rows: HistoryRows, folds: Sequence[Split], plan: Plan) -> dict[str, Any]:
    settings = plan.settings
    return {
        "name": settings.name,
        "symbols": rows.symbols,
        "dead_band_bps": settings.dead_band_bps,
        "data_sha256": rows.data_sha256,
        "folds": [
            {
                "from_ns": fold.from_ns,
                "validation_ns": fold.validation_ns,
                "test_ns": fold.test_ns,
                "to_ns": fold.to_ns,
                "train_rows": int(fold.train.sum()),
                "validation_rows": int(fold.validation.sum()),
                "test_rows": int(fold.test.sum()),
            }
            for fold in folds
        ],
        "settings": dataclasses.asdict(settings),
        "seeds": plan.seeds,
        "most_rows_of_a_baseline": MOST_FITTED_ROWS,
        "code_version": code_version(),
        "libraries": library_versions() | {name: metadata.version(name) for name in ("scikit-learn", "scipy")},
    }


def _need_scikit_learn() -> None:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"evaluation needs {error.name}, which serving does not: uv sync --extra train, or "
            "pip install 'tickloom[train]'"
        ) from None


def _save(path: Path, answers: Answers) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.save(file, answers)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    part.replace(path)
