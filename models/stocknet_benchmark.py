"""The daily benchmark's table: our LSTM over several seeds beside baselines and published figures.

`benchmark` is the only code that looks at the test span, and with one recipe. `compare` is what that recipe was
chosen by: it judges every candidate on spans before.
"""

import logging
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models import stocknet
from models.lstm import start_tensorflow
from models.stocknet import Days, Samples, Score, cut_samples, score
from models.stocknet_lstm import CANDIDATES, CHOSEN, Recipe, fit_predict

logger = logging.getLogger(__name__)

# Accuracy in percent, MCC, source.
PUBLISHED: Final = (
    ("LSTM", 53.18, 0.0674, "Feng et al. 2019"),
    ("LSTM with attention", 54.90, 0.1043, "Feng et al. 2019"),
    ("LSTM with attention, adversarial", 57.20, 0.1483, "Feng et al. 2019"),
)
_RESAMPLES: Final = 2_000
_LIKELY: Final = (5.0, 95.0)  # percentiles

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """What came of the benchmark: the test span's scores."""

    samples: dict[str, int]  # of each span
    always_up: Score
    mean_reversion: Score  # up if the close stood below its 30-day mean
    seeds: tuple[Score, ...]
    ensemble: Score  # of the mean of the seeds' scores
    ensemble_likely: tuple[Score, Score]  # 90 % of resamplings of the span's days lie between
    recipe: Recipe

    def as_json(self) -> dict[str, Any]:
        """Return everything, the published figures too, as plain values."""
        published = {name: asdict(Score(accuracy, mcc)) for name, accuracy, mcc, _ in PUBLISHED}
        return {**asdict(self), "mean": asdict(self.mean), "spread": asdict(self.spread), "published": published}

    @property
    def mean(self) -> Score:
        """The mean over the seeds."""
        return Score(*np.mean([(each.accuracy_percent, each.mcc) for each in self.seeds], axis=0).tolist())

    @property
    def spread(self) -> Score:
        """The standard deviation over the seeds."""
        return Score(*np.std([(each.accuracy_percent, each.mcc) for each in self.seeds], axis=0, ddof=1).tolist())

    def table(self) -> Table:
        """Return the scores as a table for the terminal."""
        counts = ", ".join(f"{count:,} samples to {name}" for name, count in self.samples.items())
        table = Table(title=f"Daily movements of 88 stocks, {stocknet.TEST[0]} to 2015-12-31")
        table.add_column("model")
        table.add_column("accuracy %", justify="right")
        table.add_column("MCC", justify="right")
        table.add_column("source")
        here = "measured here"
        table.add_row("always up", *_cells(self.always_up), here)
        table.add_row("up if below its 30-day mean", *_cells(self.mean_reversion), here)
        for name, accuracy, mcc, source in PUBLISHED:
            table.add_row(name, *_cells(Score(accuracy, mcc)), source)
        ours = f"ours, LSTM{' with attention' * self.recipe.attention}{' and market means' * self.recipe.market}"
        mean, spread = self.mean, self.spread
        table.add_row(
            f"{ours}, {len(self.seeds)} seeds",
            f"{mean.accuracy_percent:.2f} ± {spread.accuracy_percent:.2f}",
            f"{mean.mcc:.4f} ± {spread.mcc:.4f}",
            here,
        )
        table.add_row(f"{ours}, ensemble", *_cells(self.ensemble), here)
        low, high = self.ensemble_likely
        table.caption = (
            f"{counts}; ensemble, 90 % of resamplings of the days: {low.accuracy_percent:.2f} to "
            f"{high.accuracy_percent:.2f} %, MCC {low.mcc:.4f} to {high.mcc:.4f}"
        )
        return table


def benchmark(days: Days, recipe: Recipe = CHOSEN, *, seeds: int, console: Console | None = None) -> Outcome:
    """Train on the training span with several seeds and judge on the test span.

    Args:
        days: as `models.stocknet.read_days` gives them.
        recipe: how to train.
        seeds: 2 or more, from 1 on.
        console: where to show progress; nowhere if not given.

    Raises:
        SettingsError: the training set is not installed.
        SourceError: the days do not reach over the spans.
        ValueError: one seed, which has no spread.
    """
    if seeds < 2:
        raise ValueError(f"{seeds} seed; right would be 2 seeds or more")
    train, validation, test = (
        cut_samples(days, span) for span in (stocknet.TRAIN, stocknet.VALIDATION, stocknet.TEST)
    )
    start_tensorflow()
    with Progress(console=console or Console(quiet=True), transient=True) as progress:
        task = progress.add_task("training", total=seeds * recipe.epochs)

        def advance() -> None:
            progress.advance(task)

        scores = np.array([fit_predict(days, train, test, recipe, seed + 1, advance) for seed in range(seeds)])
    together = scores.mean(axis=0) > 0.0
    return Outcome(
        samples={"train": len(train.up), "validate": len(validation.up), "test": len(test.up)},
        always_up=score(test.up, np.ones(len(test.up), np.bool_)),
        mean_reversion=score(test.up, days.features[test.day - 1, test.stock, -1] > 0.0),
        seeds=tuple(score(test.up, each > 0.0) for each in scores),
        ensemble=score(test.up, together),
        ensemble_likely=_likely(test, together),
        recipe=recipe,
    )


def compare(days: Days, seeds: int, console: Console | None = None) -> dict[str, list[float]]:
    """Return the MCC, the mean of several seeds, of each candidate on each of `models.stocknet.FOLDS`.

    The test span is not looked at.

    Args:
        days: as `models.stocknet.read_days` gives them.
        seeds: from 1 on.
        console: where to show progress; nowhere if not given.

    Raises:
        SettingsError: the training set is not installed.
        SourceError: the days do not reach over the spans.
    """
    start_tensorflow()
    begin = stocknet.TRAIN[0]
    folds = [(cut_samples(days, (begin, span[0])), cut_samples(days, span)) for span in stocknet.FOLDS]
    found: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    with Progress(console=console or Console(quiet=True), transient=True) as progress:
        total = len(folds) * seeds * sum(recipe.epochs for recipe in CANDIDATES.values())
        task = progress.add_task("candidates", total=total)

        def advance() -> None:
            progress.advance(task)

        for name, recipe in CANDIDATES.items():
            progress.update(task, description=name)
            for train, judged in folds:
                tries = [fit_predict(days, train, judged, recipe, seed + 1, advance) for seed in range(seeds)]
                found[name].append(float(np.mean([score(judged.up, each > 0.0).mcc for each in tries])))
            logger.info("%s: MCC %.4f", name, np.mean(found[name]))
    return found


def comparison_table(found: dict[str, list[float]]) -> Table:
    """Return what `compare` found as a table for the terminal, the best first."""
    table = Table(title="MCC on spans before the test span")
    table.add_column("candidate")
    for start, _ in stocknet.FOLDS:
        table.add_column(f"from {start}", justify="right")
    table.add_column("mean", justify="right")
    for name, values in sorted(found.items(), key=lambda item: -float(np.mean(item[1]))):
        chosen = " (chosen)" if CANDIDATES[name] == CHOSEN else ""
        table.add_row(f"{name}{chosen}", *(f"{value:.3f}" for value in values), f"{np.mean(values):.4f}")
    return table


def _likely(test: Samples, predicted: NDArray[np.bool_]) -> tuple[Score, Score]:
    # Whole days are drawn, not samples: stocks move together, so that the span says less than its samples count.
    generator = np.random.default_rng(0)
    of_day = [np.flatnonzero(test.day == day) for day in np.unique(test.day)]
    drawn = []
    for _ in range(_RESAMPLES):
        where = np.concatenate([of_day[day] for day in generator.integers(0, len(of_day), len(of_day))])
        each = score(test.up[where], predicted[where])
        drawn.append((each.accuracy_percent, each.mcc))
    low, high = np.percentile(drawn, _LIKELY, axis=0)
    return Score(*low.tolist()), Score(*high.tolist())


def _cells(each: Score) -> tuple[str, str]:
    return f"{each.accuracy_percent:.2f}", f"{each.mcc:.4f}"
