"""Search of training settings: which architecture, features, horizon and rates predict best, walking forward.

Each trial is written to a database in the search's directory as it goes. Whatever ends a search, the next one on
that directory goes on where it stopped, with the trials that it would have made: what is tried next depends on the
seed and on the trials that are done, and on nothing else.
"""

import dataclasses
import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from models.settings_file import write_train_settings
from models.train import TrainSettings
from stream.errors import ModelError, SettingsError

logger = logging.getLogger(__name__)

BEST: Final = "best.json"
_ALWAYS: Final = "book"  # the group of features that every trial has: most of what can be predicted is there
_DATABASE: Final = "search.sqlite3"
_STUDY: Final = "tickloom"
_RANDOM_TRIALS: Final = 10  # before the sampler has something to learn from
_TRIALS_BEFORE_PRUNING: Final = 5
_STEPS_BEFORE_PRUNING: Final = 2  # epochs

# Called after each epoch with the skill so far; raises where the trial is not worth going on with.
OnEpoch = Callable[[float], None]
# Trains with settings and returns the mean skill over the folds: 1 - log loss / log loss of class frequencies.
Judge = Callable[[TrainSettings, OnEpoch], float]


@dataclass(frozen=True)
class Space:
    """What is searched. The bounds of rates are those within which LSTMs of this size train at all."""

    horizons_s: tuple[float, ...]
    layers: tuple[int, ...] = (1, 2, 3)
    units: tuple[int, ...] = (8, 16, 32, 64, 128)
    steps: tuple[int, ...] = (32, 64, 128)
    learning_rate: tuple[float, float] = (5e-4, 2e-2)
    dropout: tuple[float, float] = (0.0, 0.4)
    weight_decay: tuple[float, float] = (1e-6, 1e-2)

    def suggest(self, trial: Any, base: TrainSettings) -> TrainSettings:
        """Return settings for a trial: ``base`` but for what is searched."""
        shapes = {
            f"{layers} x {units}": (layers, units)
            for layers in self.layers
            for units in self.units
            if layers * units <= MODEL_STATE_FLOATS
        }
        layers, units = shapes[trial.suggest_categorical("shape", list(shapes))]
        groups = features.groups(base.periods)
        wanted = [name for name in groups if name == _ALWAYS or trial.suggest_categorical(name, [True, False])]
        chosen = {name for group in wanted for name in groups[group]}
        return dataclasses.replace(
            base,
            layers=layers,
            units=units,
            feature_names=tuple(name for name in features.names(base.periods) if name in chosen),
            horizon_s=trial.suggest_categorical("horizon_s", list(self.horizons_s)),
            steps=trial.suggest_categorical("steps", list(self.steps)),
            learning_rate=trial.suggest_float("learning_rate", *self.learning_rate, log=True),
            dropout=trial.suggest_float("dropout", *self.dropout),
            weight_decay=trial.suggest_float("weight_decay", *self.weight_decay, log=True),
        )


@dataclass(frozen=True)
class Budget:
    """When a search is done: whichever comes first."""

    trials: int  # of the search as a whole, those of earlier runs included
    seconds: float | None = None  # of this run


@dataclass(frozen=True)
class Found:
    """What a search has found by now."""

    path: Path  # of the best settings, for `tickloom train --settings`
    skill: float
    best: dict[str, Any]
    trials: tuple[dict[str, Any], ...]  # all that are done, in order

    def table(self, most: int = 10) -> Table:
        """Return the best trials as a table for the terminal."""
        whole = [trial for trial in self.trials if trial["skill"] is not None]
        table = Table(
            title=f"{len(self.trials)} trials, {len(self.trials) - len(whole)} of them cut short",
            box=box.SIMPLE,
            padding=(0, 0),
            pad_edge=False,
        )
        for heading in ("trial", "skill", "shape", "ahead", "steps", "rate", "dropout", "decay"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("features", min_width=18)
        for trial in sorted(whole, key=lambda each: -each["skill"])[:most]:
            chosen = trial["settings"]
            groups = " ".join([_ALWAYS, *(name for name, value in chosen.items() if value is True)])
            values = [chosen[name] for name in ("horizon_s", "steps", "learning_rate", "dropout", "weight_decay")]
            cells = [f"{value:.2g}" if isinstance(value, float) else str(value) for value in values]
            table.add_row(str(trial["trial"]), f"{trial['skill']:.4f}", chosen["shape"], *cells, groups)
        table.caption = "skill: 1 - log loss / log loss of the class frequencies, mean of the folds; ahead: s"
        return table


class _TimeIsUp(Exception):
    pass


def search(
    judge: Judge,
    base: TrainSettings,
    space: Space,
    budget: Budget,
    out: Path,
    subject: dict[str, Any],
    console: Console | None = None,
) -> Found:
    """Try settings until the budget is spent, and write the best to ``out``/best.json each time there is one.

    Args:
        judge: trains and judges; deterministic.
        base: settings of what is not searched, and the seed.
        space: what is searched.
        budget: when to stop.
        out: the search's directory; one with trials is gone on with.
        subject: what the trials are judged on, such as the hash of the ticks; plain values.
        console: where to show progress; nowhere if not given.

    Raises:
        SettingsError: Optuna is not installed, another search uses the directory, or it holds one of another kind.
        ModelError: no trial could be trained to its end.
    """
    with _alone(out):
        study = _open(out, {"base": dataclasses.asdict(base), "space": dataclasses.asdict(space), **subject})
        until_s = time.monotonic() + budget.seconds if budget.seconds is not None else None
        with Progress(console=console or Console(quiet=True), transient=True) as progress:
            task = progress.add_task("searching", total=budget.trials)
            while (done := len(_done(study))) < budget.trials:
                progress.update(task, completed=done, description=_describe(study))
                try:
                    _try(study, judge, space, base, base.seed + done, until_s)
                except _TimeIsUp:
                    break
                _write_best(study, space, base, out)
                newest = _done(study)[-1]
                logger.info("trial %d: %s, skill %s", newest.number, newest.state.name.lower(), newest.value)
        return _found(study, space, base, out)


def _try(study: Any, judge: Judge, space: Space, base: TrainSettings, seed: int, until_s: float | None) -> None:
    import optuna

    if until_s is not None and time.monotonic() >= until_s:
        raise _TimeIsUp
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)
    trial = study.ask()
    epochs = 0

    def on_epoch(skill: float) -> None:
        nonlocal epochs
        if until_s is not None and time.monotonic() >= until_s:
            raise _TimeIsUp
        trial.report(skill, epochs)
        epochs += 1
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        skill = judge(space.suggest(trial, base), on_epoch)
    except _TimeIsUp:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except ModelError as error:
        logger.warning("trial %d could not be trained: %s", trial.number, error)
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, skill)


def _open(out: Path, subject: dict[str, Any]) -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"a search needs {error.name}: uv sync --extra train, or pip install 'tickloom[train]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=_STUDY,
        storage=optuna.storages.RDBStorage(f"sqlite:///{out / _DATABASE}"),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, _STEPS_BEFORE_PRUNING),
    )
    asked, held = json.loads(json.dumps(subject)), study.user_attrs.get("subject")
    if held is None:
        study.set_user_attr("subject", asked)
    elif held != asked:
        other = ", ".join(sorted(key for key in held | asked if held.get(key) != asked.get(key)))
        raise SettingsError(
            f"{out} holds a search with other {other}; right would be the same as then, or another --out"
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        # Of a search that was killed. It comes again: nothing of it counts for what is tried next.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "search.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another search is at work in {out}") from None
        yield


def _done(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _best(study: Any) -> Any:
    whole = [trial for trial in _done(study) if trial.value is not None and trial.state.name == "COMPLETE"]
    return max(whole, key=lambda trial: trial.value) if whole else None


def _write_best(study: Any, space: Space, base: TrainSettings, out: Path) -> None:
    best = _best(study)
    if best is not None:
        write_train_settings(out / BEST, _settings_of(best, space, base))


def _settings_of(trial: Any, space: Space, base: TrainSettings) -> TrainSettings:
    from optuna.trial import FixedTrial

    return space.suggest(FixedTrial(trial.params), base)


def _found(study: Any, space: Space, base: TrainSettings, out: Path) -> Found:
    best = _best(study)
    if best is None:
        errors = {trial.user_attrs["error"] for trial in _done(study) if "error" in trial.user_attrs}
        raise ModelError(
            f"{len(_done(study))} trials, none of them whole: {'; '.join(sorted(errors)) or 'no time for one'}"
        )
    _write_best(study, space, base, out)
    trials = tuple(
        {
            "trial": trial.number,
            "skill": trial.value if trial.state.name == "COMPLETE" else None,
            "seconds": trial.duration.total_seconds(),
            "settings": trial.params,
            "error": trial.user_attrs.get("error"),
        }
        for trial in _done(study)
    )
    return Found(out / BEST, best.value, best.params, trials)


def _describe(study: Any) -> str:
    best = _best(study)
    return "searching" if best is None else f"best skill {best.value:.5f}"
