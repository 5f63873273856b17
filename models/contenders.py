"""Models that are judged: trained for each fold and seed, or files that are there already.

Either way the answers are those of the file that would serve, through the loader and the predictor, one step at a
time with state carried.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents import features
from agents.inference import Predictor
from agents.periods import Periods
from models.artifact import load
from models.card import ModelCard
from models.dataset import HistoryRows, Labels
from models.metrics import Answers, serve
from models.predictor import load_predictor
from models.splits import Split
from models.train import TrainSettings, fit, write_trained
from stream.clock import NS_PER_S
from stream.errors import ModelError

# A split, a seed, and a directory of its own -> float32[J, 4] for the J rows of the split's test span.
Learn = Callable[[Split, int, Path], Answers]


@dataclass(frozen=True)
class Contender:
    """A model to be judged beside the baselines."""

    name: str
    what: str  # for the reader of the card
    seeds: Sequence[int]
    learn: Learn
    about: Mapping[str, Any]  # what tells it from any other: plain values


def trained(rows: HistoryRows, labels: Labels, settings: TrainSettings, seeds: int, console: Console) -> Contender:
    """Return an LSTM that is trained for each fold, with as many seeds, from the one of the settings on.

    Args:
        rows: A rows, with all features.
        labels: of them.
        settings: of the trainings.
        seeds: how many.
        console: where to show the epochs.
    """

    def learn(split: Split, seed: int, place: Path) -> Answers:
        mine = dataclasses.replace(settings, seed=seed)
        checkpoints, path = place / "checkpoints", place / "model.onnx"
        fitted = fit(rows, labels, split, mine, console=console, checkpoints=checkpoints)
        write_trained(fitted, rows, labels, split, mine, path)
        shutil.rmtree(checkpoints)
        return _answers(load_predictor(path, available=features.names(settings.periods)), rows, split)

    return Contender(
        name=settings.name,
        what=f"LSTM of {settings.layers} x {settings.units} units on {len(settings.feature_names)} features"
        + (", learnt on top of a regression on them" if settings.direct else ""),
        seeds=range(settings.seed, settings.seed + seeds),
        learn=learn,
        about={"settings": dataclasses.asdict(settings)},
    )


def from_file(rows: HistoryRows, path: Path, periods: Periods) -> Contender:
    """Return a model that is there already, and that has seen nothing of what it is judged by.

    Args:
        rows: A rows, with all features.
        path: of the model file.
        periods: of the features.

    Raises:
        ModelError: it must not serve. Its answers raise as well where it was trained on the span that judges it.
    """
    card = load(path, features.names(periods)).card

    def learn(split: Split, seed: int, place: Path) -> Answers:
        if card.trained_to_ns > split.test_ns:
            raise ModelError(
                f"{path} was trained on ticks up to {_time(card.trained_to_ns)} and would be judged from "
                f"{_time(split.test_ns)} on; right would be later ticks, or an older model"
            )
        return _answers(load_predictor(path, available=features.names(periods)), rows, split)

    return Contender(
        name=contender_name(card),
        what=f"{path.name}, trained on {_time(card.trained_from_ns)} to {_time(card.trained_to_ns)}",
        seeds=(0,),
        learn=learn,
        about={"model_id": f"{card.model_id:016x}", "code_version": card.code_version},
    )


def contender_name(card: ModelCard) -> str:
    """Return what a model file is called among those that are judged."""
    return f"{card.name} {card.version} ({card.model_id:016x})"


def task_of(paths: Sequence[Path], periods: Periods) -> ModelCard:
    """Return the card of the first of some model files, which all predict the same.

    Raises:
        ModelError: they do not, or one of them must not serve.
    """
    cards = [load(path, features.names(periods)).card for path in paths]
    tasks = {(card.horizon_ns / NS_PER_S, card.dead_band_bps) for card in cards}
    if len(tasks) > 1:
        seen = ", ".join(
            f"{horizon_s:g} s ahead with a dead band of {band:g} bps" for horizon_s, band in sorted(tasks)
        )
        raise ModelError(f"the models predict different things: {seen}; right would be one of them")
    return cards[0]


def _answers(predictor: Predictor, rows: HistoryRows, split: Split) -> Answers:
    # From the validation span on: it builds the state up that the test span starts with, as live.
    served = (rows.event_ns >= split.validation_ns) & (rows.event_ns < split.to_ns)
    recent = dataclasses.replace(
        rows,
        features=rows.features[served],
        symbol_row=rows.symbol_row[served],
        event_ns=rows.event_ns[served],
        ref_price=rows.ref_price[served],
    )
    return serve(predictor, recent)[split.test[served]]


def _time(time_ns: int) -> str:
    return f"{np.datetime64(time_ns // NS_PER_S, 's')} UTC"
