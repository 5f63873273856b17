import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from models import stocknet_benchmark
from models.stocknet import TEST, Days, Samples, read_days
from models.stocknet_benchmark import PUBLISHED, benchmark, compare, comparison_table
from models.stocknet_lstm import CANDIDATES, CHOSEN, Recipe

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def days(shared_data: Path) -> Days:
    pytest.importorskip("tensorflow")
    return read_days(shared_data / "bars" / "daily_stocknet88.parquet")


def printed(table: Any) -> str:
    console = Console(record=True, width=160)
    console.print(table)
    return console.export_text()


def test_the_table_has_our_figures_beside_the_published_ones(days: Days) -> None:
    quick = Recipe(lag_days=2, units=4, epochs=1, batch=4096)
    outcome = benchmark(days, quick, seeds=2)
    assert outcome.samples == {"train": 20_315, "validate": 2_555, "test": 3_720}
    assert len(outcome.seeds) == 2
    low, high = outcome.ensemble_likely
    assert low.mcc < outcome.ensemble.mcc < high.mcc
    assert low.accuracy_percent < outcome.ensemble.accuracy_percent < high.accuracy_percent
    text = printed(outcome.table())
    for name, accuracy, mcc, _ in PUBLISHED:
        assert f"{name} " in text
        assert f"{accuracy:.2f}" in text
        assert f"{mcc:.4f}" in text
    assert f"{outcome.ensemble.mcc:.4f}" in text
    assert f"{outcome.mean.mcc:.4f} ± {outcome.spread.mcc:.4f}" in text
    assert "52.93" in text
    told = json.loads(json.dumps(outcome.as_json()))
    assert told["mean"]["mcc"] == pytest.approx(sum(each.mcc for each in outcome.seeds) / 2)
    assert told["always_up"]["accuracy_percent"] == pytest.approx(51.29, abs=0.005)


def test_candidates_are_compared_without_a_look_at_the_test_span(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_day = int(np.searchsorted(days.date, np.datetime64(TEST[0])))
    seen: list[tuple[Recipe, int]] = []

    def pretended(
        days: Days, train: Samples, judged: Samples, recipe: Recipe, seed: int, on_epoch: Callable[[], None]
    ) -> Any:
        assert train.day.max() < judged.day.min()
        assert judged.day.max() < last_day
        seen.append((recipe, seed))
        truth = np.where(judged.up, 1.0, -1.0)
        return truth if recipe == CHOSEN else np.ones(len(truth))

    monkeypatch.setattr(stocknet_benchmark, "fit_predict", pretended)
    found = compare(days, seeds=2)
    assert len(seen) == len(set(seen)) * 4 == len(CANDIDATES) * 2 * 4
    assert {name for name, values in found.items() if values == pytest.approx([1.0] * 4)} == {
        name for name, recipe in CANDIDATES.items() if recipe == CHOSEN
    }
    lines = printed(comparison_table(found)).splitlines()
    best = next(line for line in lines if "1.0000" in line)
    assert "(chosen)" in best
    assert lines.index(best) < lines.index(next(line for line in lines if "0.0000" in line))


def test_a_seed_alone_has_no_spread(days: Days) -> None:
    with pytest.raises(ValueError, match="2 seeds or more"):
        benchmark(days, seeds=1)
