"""The composition root's part that trains: what on, and what comes of it."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream.clock import NS_PER_S
from stream.days import day_of
from stream.errors import SettingsError
from stream.settings import Settings
from stream.topics import TICKS, broker


@dataclass(frozen=True)
class TrainOn:
    """What a model is trained on: one of the first four, or else simulated markets."""

    replay: Path | None  # recorded ticks, one day of them or all
    features: Path | None  # a file that `tickloom replay --features` wrote
    kafka_days: float | None  # the last days that the topic of ticks holds
    clickhouse_days: float | None  # the last days that ClickHouse has
    day: str | None  # of the replay
    seconds: float  # of simulated time

    def check(self, settings: Settings) -> None:
        """Check it.

        Raises:
            SettingsError: more than one is given, or it cannot be.
        """
        given = (self.replay, self.features, self.kafka_days, self.clickhouse_days)
        if sum(each is not None for each in given) > 1:
            raise SettingsError(
                "--replay, --features, --kafka-days, --clickhouse-days: right would be at most one of them"
            )
        for name, days in (("--kafka-days", self.kafka_days), ("--clickhouse-days", self.clickhouse_days)):
            if days is not None and not days > 0:
                raise SettingsError(f"{name} is {days}; right would be above 0")
        if self.kafka_days is not None:
            broker(settings)
        if self.clickhouse_days is not None and settings.clickhouse is None:
            raise SettingsError(
                "--clickhouse-days needs a server: set TICKLOOM_CLICKHOUSE or give --clickhouse URL"
            )


def train_model(
    settings: Settings,
    on: TrainOn,
    file: Path | None,
    out: Path,
    checkpoints: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train, export, check and write a model; print what came of it.

    Args:
        settings: of the engine: features are made, and ticks believed, as it does.
        on: what to train on.
        file: of settings of the training, as a search writes.
        out: path of the model, ending in ``.onnx``.
        checkpoints: where a training is kept, so that it goes on after a kill.
        as_json: print the metrics as JSON.
        chosen: as `stream.training.training_settings` takes it; ``seed`` is the simulated markets' as well.

    Raises:
        SettingsError: TensorFlow is not installed, or what to train on is not clear.
        SourceError: what to train on cannot be read.
        ModelError: too little data, or the export is not what was trained.
    """
    on.check(settings)
    from rich.console import Console

    from models.feature_file import read_features
    from models.train import train, train_on
    from stream.training import training_settings

    console = Console(stderr=as_json)
    wanted = training_settings(settings, file, **chosen)
    if on.features is not None:
        made_with = {name: getattr(wanted, name) for name in ("lateness_s", "outlier_bps", "outlier_scale")}
        rows = read_features(on.features, wanted.periods, **made_with)
        report = train_on(rows, wanted, out, console, checkpoints)
    else:
        report = train(_training_ticks(settings, on, wanted.seed, console), wanted, out, console, checkpoints)
    if as_json:
        metrics = {"model": str(report.path), "id": f"{report.card.model_id:016x}", **report.card.metrics}
        print(json.dumps(metrics))
    else:
        console.print(report.table())
        console.print(f"serve it with: tickloom worker --model {report.path}")


def _training_ticks(settings: Settings, on: TrainOn, seed: int, console: Any) -> Iterator[Any]:
    from models.clickhouse_history import clickhouse_ticks
    from models.kafka_history import kafka_ticks
    from models.simulated import simulated_markets
    from stream.sources.replay import Replay

    now_ns = time.time_ns()
    if on.replay is not None:
        yield from Replay([on.replay], day_of(on.day)).days()
    elif on.kafka_days is not None:
        from_ns = now_ns - int(on.kafka_days * 86_400 * NS_PER_S)
        address = broker(settings)
        yield from _shown(console, TICKS, lambda told: kafka_ticks(address, TICKS, from_ns, now_ns, told))
    elif on.clickhouse_days is not None and settings.clickhouse is not None:
        from_ns = now_ns - int(on.clickhouse_days * 86_400 * NS_PER_S)
        url = settings.clickhouse.get_secret_value()
        yield from _shown(console, "ClickHouse", lambda told: clickhouse_ticks(url, from_ns, now_ns, told))
    else:
        yield from simulated_markets(seed, on.seconds)


def _shown(console: Any, what: str, read: Callable[[Callable[[int, int], None]], Iterator[Any]]) -> Iterator[Any]:
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"reading {what}", total=None)
        yield from read(lambda done, total: progress.update(task, completed=done, total=total))
