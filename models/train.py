"""Training: from a recording to a model file that `models.artifact.load` accepts, with its metrics inside.

The recording is split at two moments into a training span, a span to choose the best epoch by, and a later held-out
span that nothing but the final score ever sees. A label that looks across the end of its span does not count.
"""

import dataclasses
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agents import drift, features
from agents.inference import MODEL_STATE_FLOATS, Predictor
from agents.periods import DEFAULT, Periods
from models import lstm
from models.artifact import load
from models.card import CLASSES, Golden, ModelCard
from models.dataset import HistoryRows, Labels, by_symbol, cut_streams, history, label
from models.export import GOLDEN_TOLERANCE, check_parity, code_version, library_versions, with_golden, write_model
from models.metrics import measure_warmup, score, serve
from models.onnx_wire import read_graph
from models.predictor import load_predictor
from stream.clock import NS_PER_S
from stream.errors import ModelError
from stream.records import Records

logger = logging.getLogger(__name__)

_FEWEST_ROWS: Final = 2_000  # below this a held-out span tells nothing


@dataclass(frozen=True)
class TrainSettings:
    """What can be chosen about a training. The same settings and ticks give the same weights on one machine."""

    name: str = "lstm"
    version: int = 1
    seed: int = 7
    feature_names: tuple[str, ...] = features.NAMES
    periods: Periods = DEFAULT  # of the features, as the engine that will serve has them
    horizon_s: float = 10.0
    dead_band_bps: float = 1.0
    clip_bps: float = 50.0
    lateness_s: float = 5.0  # as the engine that will serve has it
    layers: int = 1
    units: int = 32
    validation_share: float = 0.15  # of the rows, after the training span
    held_out_share: float = 0.2  # of the rows, at the end
    epochs: int = 12
    patience: int = 3  # epochs without a better validation loss before training stops
    streams: int = 128  # pieces trained side by side
    steps: int = 64  # how far gradients go back in time
    burn_in: int = 64  # rows at the start of a piece that only build state up
    learning_rate: float = 3e-3
    return_weight: float = 0.5

    def check(self) -> None:
        """Check the settings that do not explain themselves when they are wrong.

        Raises:
            ModelError: a model of these settings could not serve.
        """
        if not 0 < self.layers * self.units <= MODEL_STATE_FLOATS:
            raise ModelError(
                f"{self.layers} x {self.units} units; a symbol's state has room for {MODEL_STATE_FLOATS}"
            )
        if (
            self.validation_share <= 0
            or self.held_out_share <= 0
            or self.validation_share + self.held_out_share >= 0.9
        ):
            raise ModelError(
                f"shares of {self.validation_share} and {self.held_out_share} for validation and the held-out "
                "span; right would be both above 0 and at least 0.1 left to train on"
            )
        features.indices(self.feature_names, features.names(self.periods))


@dataclass(frozen=True)
class Report:
    """What came of a training."""

    path: Path
    card: ModelCard
    epochs: tuple[tuple[float, float], ...]  # training and validation loss of each
    parity: float  # largest difference between Keras and the served graph
    seconds: float

    def table(self) -> Table:
        """Return the metrics of the held-out span as a table for the terminal."""
        metrics = self.card.metrics
        table = Table(
            title=f"{self.card.name} version {self.card.version}, id {self.card.model_id:016x}: held-out span"
        )
        for heading in ("metric", "model", "without a model"):
            table.add_column(heading)
        table.add_row("rows", f"{metrics['rows']:,.0f}", "")
        table.add_row(
            "accuracy", f"{metrics['accuracy']:.4f}", f"{metrics['majority_accuracy']:.4f} (majority class)"
        )
        table.add_row("balanced accuracy", f"{metrics['balanced_accuracy']:.4f}", f"{1 / len(CLASSES):.4f}")
        table.add_row(
            "log loss", f"{metrics['log_loss']:.4f}", f"{metrics['prior_log_loss']:.4f} (class frequencies)"
        )
        table.add_row("rank IC of the return", f"{metrics['ic']:.4f}", "0")
        table.caption = (
            f"warm-up {self.card.warmup_ticks} ticks, parity with Keras {self.parity:.1e}, {self.seconds:.0f} s"
        )
        return table


@dataclass(frozen=True)
class Spans:
    """Which rows are in which span (``bool[A]``), and which of their labels count."""

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    train_counts: NDArray[np.bool_]
    validation_counts: NDArray[np.bool_]
    held_out_counts: NDArray[np.bool_]
    from_ns: int
    to_ns: int  # end of the training span


def train(
    ticks: Records | Iterable[Records], settings: TrainSettings, out: Path, console: Console | None = None
) -> Report:
    """Train a model on a recording and write it to ``out`` with its manifest.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks.
        settings: what was chosen.
        out: path of the model file to be written, ending in ``.onnx``.
        console: where to show progress; nowhere if not given.

    Raises:
        ModelError: too little data, or the exported model is not what was trained.
        SettingsError: there is no feature of such a name, or the training set is not installed.
    """
    started_s = time.monotonic()
    settings.check()
    lstm.start_tensorflow()
    available = features.names(settings.periods)
    rows = history(ticks, int(settings.lateness_s * NS_PER_S), settings.periods)
    labels = label(rows, int(settings.horizon_s * NS_PER_S), settings.dead_band_bps, settings.clip_bps)
    spans = split_spans(rows, labels, settings)
    columns = features.indices(settings.feature_names, available)
    wanted = dataclasses.replace(rows, features=rows.features[:, columns])
    scaler = lstm.Scaler.fit(wanted.features[spans.train])
    models = lstm.build(scaler, settings.layers, settings.units, settings.seed)
    losses = _fit(models, wanted, labels, spans, settings, console)
    graph = lstm.export_step(models)
    card = _draft_card(graph, rows, spans, settings)
    longest = wanted.features[max(by_symbol(rows.symbol_row), key=len)]
    parity = check_parity(models, graph, card, longest)
    card = with_golden(card, graph, longest)
    write_model(out, graph, card)
    # Judged as it will serve: the file itself, through the loader and the predictor, one step at a time.
    predictor = load_predictor(out, available=available)
    card = _judge(card, predictor, rows, labels, spans)
    write_model(out, graph, card)
    load(out, available)
    return Report(out, card, losses, parity, time.monotonic() - started_s)


def split_spans(rows: HistoryRows, labels: Labels, settings: TrainSettings) -> Spans:
    """Split a recording at two moments of event time, such that the spans have their shares of the rows.

    By rows and not by hours: a recorded day may end with hours in which next to nothing trades.

    Raises:
        ModelError: too few rows, or a span has no label that counts.
    """
    if len(rows.event_ns) < _FEWEST_ROWS:
        raise ModelError(f"{len(rows.event_ns)} accepted ticks to train on; right would be {_FEWEST_ROWS} or more")
    in_time = np.sort(rows.event_ns)
    held_out_ns = int(in_time[-int(settings.held_out_share * len(in_time))])
    validation_ns = int(in_time[-int((settings.held_out_share + settings.validation_share) * len(in_time))])
    length_ns = int(in_time[-1] - in_time[0])
    horizon_ns = int(settings.horizon_s * NS_PER_S)
    event_ns, known = rows.event_ns, labels.known
    train, validation = event_ns < validation_ns, (event_ns >= validation_ns) & (event_ns < held_out_ns)
    spans = Spans(
        train=train,
        validation=validation,
        train_counts=train & known & (event_ns + horizon_ns < validation_ns),
        validation_counts=validation & known & (event_ns + horizon_ns < held_out_ns),
        held_out_counts=(event_ns >= held_out_ns) & known,
        from_ns=int(in_time[0]),
        to_ns=validation_ns,
    )
    for name in ("train_counts", "validation_counts", "held_out_counts"):
        if not getattr(spans, name).any():
            raise ModelError(
                f"no label in the span {name.removesuffix('_counts')}: the recording is {length_ns / NS_PER_S:.1f} "
                f"s long and the horizon {settings.horizon_s} s; right would be a longer recording"
            )
    return spans


def _fit(
    models: lstm.Models,
    rows: HistoryRows,
    labels: Labels,
    spans: Spans,
    settings: TrainSettings,
    console: Console | None,
) -> tuple[tuple[float, float], ...]:
    """Train until the validation loss stops falling, and leave the best weights in ``models``."""
    cut = (settings.streams, settings.burn_in)
    learning = cut_streams(rows, labels, spans.train, spans.train_counts, *cut)
    judging = cut_streams(rows, labels, spans.validation, spans.validation_counts, *cut)
    spread = float(labels.return_bps[spans.train_counts].std()) or 1.0
    trainer = lstm.Trainer(models, settings.learning_rate, settings.return_weight, spread)
    losses: list[tuple[float, float]] = []
    best, best_weights = np.inf, models.sequence.get_weights()
    with Progress(console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task("training", total=settings.epochs)
        for epoch in range(settings.epochs):
            loss = trainer.epoch(learning, settings.steps, learn=True)
            validation = trainer.epoch(judging, settings.steps, learn=False)
            losses.append((loss, validation))
            text = f"epoch {epoch + 1}: loss {loss:.4f}, validation {validation:.4f}"
            progress.update(task, advance=1, description=text)
            logger.info("%s", text)
            if validation < best:
                best, best_weights = validation, models.sequence.get_weights()
            elif epoch - int(np.argmin([pair[1] for pair in losses])) >= settings.patience:
                break
    if not np.isfinite(best):
        raise ModelError(
            f"training diverged: losses {losses}; a lower learning rate than {settings.learning_rate}?"
        )
    models.sequence.set_weights(best_weights)
    return tuple(losses)


def _draft_card(graph: bytes, rows: HistoryRows, spans: Spans, settings: TrainSettings) -> ModelCard:
    names = settings.feature_names
    some = np.flatnonzero(spans.train)[:: 1 + len(rows.features) // drift.MOST_ROWS]
    trained = rows.features[some][:, features.indices(names, features.names(settings.periods))]
    nothing = Golden(np.zeros((1, len(names)), np.float32), np.zeros((1, 4), np.float32), GOLDEN_TOLERANCE)
    return ModelCard(
        name=settings.name,
        version=settings.version,
        feature_names=names,
        horizon_ns=int(settings.horizon_s * NS_PER_S),
        dead_band_bps=settings.dead_band_bps,
        clip_bps=settings.clip_bps,
        warmup_ticks=1,
        layers=settings.layers,
        units=settings.units,
        trained_from_ns=spans.from_ns,
        trained_to_ns=spans.to_ns,
        data_sha256=rows.data_sha256,
        weights_sha256=read_graph(graph).weights_sha256,
        code_version=code_version(),
        golden=nothing,
        libraries=library_versions(),
        training=dataclasses.asdict(settings) | {drift.FEATURES_KEY: drift.reference(trained, names)},
    )


def _judge(card: ModelCard, predictor: Predictor, rows: HistoryRows, labels: Labels, spans: Spans) -> ModelCard:
    # From the validation span on: it builds the state up that the held-out span starts with, as live.
    later = rows.event_ns >= spans.to_ns
    recent = dataclasses.replace(
        rows,
        features=rows.features[later],
        symbol_row=rows.symbol_row[later],
        event_ns=rows.event_ns[later],
        ref_price=rows.ref_price[later],
    )
    answers = serve(predictor, recent)
    prior = np.bincount(labels.direction[spans.train_counts], minlength=len(CLASSES)) / spans.train_counts.sum()
    seen = Labels(labels.known[later], labels.direction[later], labels.return_bps[later])
    return dataclasses.replace(
        card,
        metrics=score(answers, seen, spans.held_out_counts[later], prior),
        warmup_ticks=measure_warmup(predictor, recent, answers),
        training={**card.training, drift.ANSWERS_KEY: drift.reference(answers, drift.ANSWERS)},
    )
