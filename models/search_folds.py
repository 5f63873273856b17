"""What a trial of a search is judged by: trainings that walk forward through a recording, short of its end.

The rows before the held-out span (`TrainSettings.held_out_share`, which `models.train.train` judges by) are cut
into folds: each learns from all rows before it and is judged by its own. Nothing looks at the held-out span.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from agents import features
from models.card import CLASSES
from models.dataset import HistoryRows, Labels, Streams, cut_streams, label
from models.splits import Split, by_shares, split_at
from models.train import Fitted, TrainSettings, fit
from models.trainer import Objective, Trainer
from stream.clock import NS_PER_S
from stream.errors import ModelError

_FIRST_SHARE: Final = 0.5  # of the rows, which the first fold learns from
_HUBER_SIGMAS: Final = 2.0  # as in `models.trainer`


@dataclass(frozen=True)
class Folds:
    """Judges settings on a recording."""

    rows: HistoryRows
    count: int = 3  # of folds

    def __call__(self, settings: TrainSettings, on_epoch: Callable[[float], None]) -> float:
        """Train on each fold and return the mean skill: 1 - log loss / log loss of the class frequencies.

        Args:
            settings: how to train.
            on_epoch: is called after each epoch with the mean skill of the folds so far, measured by the loss that
                is trained, that of the expected return included.

        Raises:
            ModelError: a fold has no labels, or a training diverged.
        """
        import keras

        labels = label(self.rows, settings.horizon, settings.dead_band_bps, settings.clip_bps)
        skills: list[float] = []
        shown: list[float] = []
        for split in self.splits(labels, settings):
            judged = _judged(self.rows, labels, split, settings)
            nothing = _without_a_model(judged, split, settings)
            best = -np.inf

            def told(epoch: int, loss: float, validation: float, nothing: float = nothing.loss) -> None:
                nonlocal best
                best = max(best, 1.0 - validation / nothing)
                on_epoch(float(np.mean([*shown, best])))

            keras.utils.clear_session()  # else the graphs of every training so far stay in memory
            fitted = fit(self.rows, labels, split, settings, told=told)
            shown.append(best)
            skills.append(1.0 - _log_loss(fitted, judged, settings) / nothing.log_loss)
        return float(np.mean(skills))

    def splits(self, labels: Labels, settings: TrainSettings) -> tuple[Split, ...]:
        """Return the folds: ``validation`` is what one is judged by, and ``test`` is not used."""
        embargo_ns = int(settings.embargo_s * NS_PER_S)
        whole = by_shares(self.rows, labels, settings.validation_share, settings.held_out_share, embargo_ns)
        in_time = np.sort(self.rows.event_ns[self.rows.event_ns < whole.test_ns])
        shares = np.linspace(_FIRST_SHARE, 1.0, self.count + 1)[:-1]
        borders_ns = [*(int(in_time[int(share * len(in_time))]) for share in shares), whole.test_ns]
        return tuple(
            split_at(self.rows, labels, whole.from_ns, start_ns, end_ns, whole.to_ns, embargo_ns=embargo_ns)
            for start_ns, end_ns in itertools.pairwise(borders_ns)
        )

    def subject(self) -> dict[str, Any]:
        """Return what the skills depend on beside the settings."""
        return {"data_sha256": self.rows.data_sha256, "folds": self.count}


@dataclass(frozen=True)
class _Nothing:
    log_loss: float
    loss: float  # that is trained


def _judged(rows: HistoryRows, labels: Labels, split: Split, settings: TrainSettings) -> Streams:
    columns = np.array(features.indices(settings.feature_names, features.names(settings.periods)))
    inside = (rows.event_ns >= split.validation_ns) & (rows.event_ns < split.test_ns)
    streams = cut_streams(rows, labels, columns, inside, split.validation, settings.streams, settings.burn_in)
    if not streams.weight.any():
        raise ModelError(
            f"no label of a fold of {int(inside.sum())} rows is behind the first {settings.burn_in} rows of one of "
            f"{settings.streams} streams; right would be a longer recording, or fewer streams"
        )
    return streams


def _without_a_model(streams: Streams, split: Split, settings: TrainSettings) -> _Nothing:
    """Return the losses of always answering with the class frequencies of training and no move."""
    labels, where = streams.labels, streams.index[streams.weight > 0]
    counts = np.bincount(labels.direction[split.train], minlength=len(CLASSES))
    # One more of each, so that a class that comes for the first time is no infinite surprise.
    log_loss = float(-np.log((counts + 1) / (counts + 1).sum())[labels.direction[where]].mean())
    spread = float(labels.return_bps[split.train].std()) or 1.0
    off = np.abs(labels.return_bps[where]) / spread
    near = np.minimum(off, _HUBER_SIGMAS)
    return _Nothing(log_loss, log_loss + settings.return_weight * float((near * (off - 0.5 * near)).mean()))


def _log_loss(fitted: Fitted, judged: Streams, settings: TrainSettings) -> float:
    plain = Objective(
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        return_weight=0.0,
        return_spread_bps=1.0,
        class_weights=np.ones(len(CLASSES), np.float32),
    )
    return Trainer(fitted.models, plain).epoch(judged, settings.steps, learn=False, told=lambda steps: None)
