import json
from pathlib import Path
from typing import Any

import pytest

from agents import features
from agents.periods import Periods
from models.settings_file import write_train_settings
from models.train import TrainSettings
from stream import training
from stream.errors import SettingsError
from stream.settings import Settings
from stream.training import search_models, training_settings

ENGINE = Settings(tick_rsi=21, lateness_s=2.0, outlier_bps=300.0)


def test_a_training_has_the_features_of_the_engine() -> None:
    wanted = training_settings(ENGINE, None, units=8, layers=None)
    assert wanted.feature_names == features.names(Periods.of(ENGINE))
    assert "rsi_21" in wanted.feature_names
    assert (wanted.lateness_s, wanted.outlier_bps, wanted.outlier_scale) == (2.0, 300.0, ENGINE.outlier_scale)
    assert (wanted.units, wanted.layers) == (8, TrainSettings().layers)


def test_what_was_chosen_is_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    write_train_settings(path, training_settings(ENGINE, None, units=8, horizon_s=60.0))
    wanted = training_settings(ENGINE, path, horizon_s=5.0, seed=None)
    assert (wanted.units, wanted.horizon_s, wanted.seed) == (8, 5.0, TrainSettings().seed)


def test_a_file_for_another_engine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    write_train_settings(path, training_settings(ENGINE, None))
    with pytest.raises(SettingsError, match=r"lateness_s 2\.0, and the engine 3\.0: features would differ"):
        training_settings(Settings(tick_rsi=21, lateness_s=3.0, outlier_bps=300.0), path)
    with pytest.raises(SettingsError, match="features would differ"):
        training_settings(Settings(lateness_s=2.0, outlier_bps=300.0), path)


def test_a_search_is_on_the_ticks_of_the_files_as_the_engine_sees_them(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(training, "start_tensorflow", lambda: None)
    monkeypatch.setattr(training, "search", lambda *arguments: given.extend(arguments))
    gold = sorted((shared_data / "ticks" / "futures").glob("trades_GC_*.parquet"))[:1]
    search_models(
        Settings(),
        gold,
        tmp_path,
        symbols=["GC201312"],
        horizons_s=[1, 10],
        trials=5,
        seconds=60.0,
        folds=2,
        seed=11,
    )
    judge, base, space, budget, out, subject, _ = given
    assert judge.rows.symbols == ("GC201312",)
    assert len(judge.rows.event_ns) > 1000
    assert (judge.count, base.seed, space.horizons_s, out) == (2, 11, (1, 10), tmp_path)
    assert (budget.trials, budget.seconds) == (5, 60.0)
    assert subject == {"data_sha256": judge.rows.data_sha256, "folds": 2}
    json.dumps(subject)
