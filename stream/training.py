"""What trainings and searches are made of: settings from the engine, a file and flags; ticks from recordings.

Part of the composition root: imported by the commands that train.
"""

import dataclasses
import logging
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from agents import features
from agents.periods import Periods
from models.dataset import history
from models.lstm import start_tensorflow
from models.search import Budget, Found, Space, search
from models.search_folds import Folds
from models.settings_file import read_train_settings
from models.train import TrainSettings
from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.settings import Settings
from stream.sources.replay import Replay


def training_settings(
    settings: Settings, file: Path | None, take: str | None = None, **chosen: Any
) -> TrainSettings:
    """Return the settings of a training: the engine's, what a file says, and over both what was chosen.

    Args:
        settings: the engine's: what features and accepted ticks depend on.
        file: as `models.settings_file` reads it; without one, all features and defaults.
        take: the features that the model takes, as `agents.features.choose` reads it; None is not chosen.
        chosen: fields of `models.train.TrainSettings`; None is not chosen.

    Raises:
        SettingsError: not such a file or such features, or it is for an engine with other settings.
    """
    periods = Periods.of(settings)
    engine: dict[str, Any] = {
        "periods": periods,
        "lateness_s": settings.lateness_s,
        "outlier_bps": settings.outlier_bps,
        "outlier_scale": settings.outlier_scale,
    }
    over = {name: value for name, value in chosen.items() if value is not None}
    available = features.names(periods)
    if take is not None:
        over["feature_names"] = features.choose(take, available)
    if file is None:
        return TrainSettings(**{"feature_names": available, **engine, **over})
    read = read_train_settings(file)
    for name, value in engine.items():
        if getattr(read, name) != value:
            raise SettingsError(
                f"{file} has {name} {getattr(read, name)}, and the engine {value}: features would differ; right "
                "would be the same settings as when the file was written"
            )
    return dataclasses.replace(read, **over)


def search_models(
    settings: Settings,
    files: Sequence[Path],
    out: Path,
    *,
    day: date | None = None,
    symbols: Sequence[str] | None = None,
    horizons_s: Sequence[float],
    trials: int,
    seconds: float | None = None,
    folds: int = 3,
    file: Path | None = None,
    **chosen: Any,
) -> Found:
    """Search training settings on recorded ticks.

    Args:
        settings: as `training_settings` takes them.
        files: of ticks, or directories of them.
        out: the search's directory.
        day: of the recording; all days if not given.
        symbols: of the recording; all if not given.
        horizons_s: to choose from.
        trials: of the whole search.
        seconds: of this run.
        folds: to judge a trial by.
        file: as `training_settings` takes it.
        chosen: likewise.

    Raises:
        SourceError: there is nothing to read.
        SettingsError: the directory holds another search, or the training set is not installed.
        ModelError: too few ticks.
    """
    base = training_settings(settings, file, **chosen)
    # A line for each epoch of each training says less than the search's own progress; nor do hints on tracing.
    logging.getLogger("models.trainer").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    start_tensorflow()
    ticks = Replay(files, day, symbols).days()
    lateness_ns = int(base.lateness_s * NS_PER_S)
    judge = Folds(history(ticks, lateness_ns, base.periods, base.outlier_bps, base.outlier_scale), folds)
    budget = Budget(trials, seconds)
    space = Space(tuple(horizons_s))
    return search(judge, base, space, budget, out, judge.subject(), Console(stderr=True))
