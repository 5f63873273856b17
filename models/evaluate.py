"""Walk-forward evaluation: models and every baseline, judged on spans that none of them has seen.

What is done is kept under ``out``: an evaluation that was killed goes on where it stopped.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from rich.console import Console

from agents import features
from models.baselines import Baseline, baselines, forecast
from models.contenders import Contender, from_file, trained
from models.dataset import HistoryRows, Labels, history, label
from models.direct import MOST_FITTED_ROWS
from models.export import code_version, library_versions
from models.judged import Judged, judged_rows
from models.judgement import Forecaster, judge
from models.lstm import start_tensorflow
from models.metrics import Answers
from models.model_card_page import page
from models.scores import log_losses
from models.splits import Split, by_shares, walk_forward
from models.train import TrainSettings
from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.records import Records

CARD: Final = "card.json"
PAGE: Final = "card.html"
_PLAN: Final = "plan.json"

Make = Callable[[Split, int, Path], Answers]


@dataclass(frozen=True)
class Plan:
    """What shall be evaluated."""

    settings: TrainSettings  # its seed is that of the first of the trainings
    folds: Literal["days", "last", "shares"] = "days"  # judge each day but the first, the last one, a share of rows
    seeds: int = 5
    models: tuple[Path, ...] = ()  # files to be judged; where there are none, models are trained
    fee_bps: float = 0.0  # of each order
    unknown_cost_bps: float = 1.0  # of a trade whose spread at the end is not known, as the setting cost_bps

    def check(self) -> None:
        """Check it.

        Raises:
            SettingsError: nothing to evaluate, or scikit-learn is not installed.
        """
        if self.seeds < 1 or not (0.0 <= self.fee_bps < np.inf and 0.0 <= self.unknown_cost_bps < np.inf):
            raise SettingsError(
                f"{self.seeds} seeds, a fee of {self.fee_bps} bps and {self.unknown_cost_bps} bps without a book; "
                "right would be 1 or more, and 0 or more"
            )
        try:
            import sklearn  # noqa: F401
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"evaluation needs {error.name}, which serving does not: uv sync --extra train, or "
                "pip install 'tickloom[train]'"
            ) from None


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
        ModelError: too little data, a training failed, or a model must not be judged by these ticks.
    """
    plan.check()
    settings = plan.settings
    settings.check()
    start_tensorflow()  # before the work, if it is not there; its version goes into the card, whoever trained
    lateness_ns = round(settings.lateness_s * NS_PER_S)
    rows = history(ticks, lateness_ns, settings.periods, settings.outlier_bps, settings.outlier_scale)
    labels = label(rows, settings.horizon, settings.dead_band_bps, settings.clip_bps)
    console.print(f"{len(rows.event_ns):,} rows of {', '.join(rows.symbols)}; {labels.known.sum():,} with a label")
    contenders = [from_file(rows, path, settings.periods) for path in plan.models] or [
        trained(rows, labels, settings, plan.seeds, console)
    ]
    return evaluate(rows, labels, cut(rows, labels, plan), plan, contenders, out, console)


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
    contenders: Sequence[Contender],
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Judge models beside all baselines, and write ``card.json`` and ``card.html``; return the card.

    Args:
        rows: A rows, with all features.
        labels: of them.
        folds: see `models.splits`; their test spans do not overlap.
        plan: what shall be evaluated.
        contenders: the models.
        out: directory of the card and of what is kept of an evaluation that is not done.
        console: where to say what is done.

    Raises:
        SettingsError: ``out`` holds another evaluation.
        ModelError: nothing to judge by, or whatever a contender raises.
    """
    judged = judged_rows(rows, labels, folds, plan.settings.periods)
    about = _about(rows, folds, plan, contenders)
    work = _Work(out, about, judged, folds, console)
    forecasters = list(_baselines(rows, labels, plan.settings, work))
    for each in contenders:
        answers = [work.answers(each.name, seed, each.learn) for seed in each.seeds]
        forecasters.append(Forecaster(each.name, each.what, False, answers))
    console.print(f"judging {len(forecasters)} forecasters by {len(judged.index):,} rows")
    card = judge(judged, forecasters, about, plan.fee_bps, plan.unknown_cost_bps)
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

    def answers(self, name: str, seed: int, make: Make) -> Answers:
        """Return the answers to all judged rows, ``float32[J, 4]``, fold by fold as far as they are not there."""
        everywhere = np.empty((len(self.judged.index), 4), np.float32)
        for number, split in enumerate(self._folds):
            place = self._out / f"fold-{number + 1}" / f"{_file_name(name)}-{seed}"
            kept = place / "answers.npy"
            started_s = time.monotonic()
            known = kept.exists()
            if not known:
                place.mkdir(parents=True, exist_ok=True)
                _save(kept, make(split, seed, place))
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

        def make(split: Split, seed: int, place: Path, baseline: Baseline = baseline) -> Answers:
            return forecast(baseline, rows, labels, split, available)

        yield Forecaster(baseline.name, baseline.what, True, [work.answers(baseline.name, 0, make)])


def _about(
    rows: HistoryRows, folds: Sequence[Split], plan: Plan, contenders: Sequence[Contender]
) -> dict[str, Any]:
    settings = plan.settings
    return {
        "models": [
            {"name": each.name, "what": each.what, "seeds": list(each.seeds), **each.about} for each in contenders
        ],
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
        "features": settings.feature_names,
        "periods": settings.periods.plain(),
        "most_rows_of_a_baseline": MOST_FITTED_ROWS,
        "code_version": code_version(),
        "libraries": library_versions() | {name: metadata.version(name) for name in ("scikit-learn", "scipy")},
    }


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


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
