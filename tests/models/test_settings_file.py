import dataclasses
from pathlib import Path

import pytest

from agents.periods import Periods
from models.settings_file import read_train_settings, write_train_settings
from models.train import TrainSettings
from stream.errors import SettingsError


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    settings = TrainSettings(
        seed=11, feature_names=("rsi_21", "spread_bps"), periods=Periods(tick_rsi=21), learning_rate=0.1 + 0.2
    )
    path = tmp_path / "best.json"
    write_train_settings(path, dataclasses.replace(settings, seed=1))
    write_train_settings(path, settings)
    assert read_train_settings(path) == settings
    assert [each.name for each in tmp_path.iterdir()] == ["best.json"]


def test_what_a_file_does_not_say_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"units": 64, "horizon_s": 60}')
    assert read_train_settings(path) == TrainSettings(units=64, horizon_s=60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"unit": 64}', "unit: Unexpected keyword argument, seen 64"),
        ('{"units": "64"}', "units: Input should be a valid integer, seen '64'"),
        ('{"units": 64', "the file: Invalid JSON"),
        ('{"periods": {"tick_rsy": 21}}', "periods.tick_rsy: Unexpected keyword argument"),
        ("[]", "the file: "),
    ],
)
def test_a_file_of_something_else_is_refused_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"mine\.json is no file of training settings") as caught:
        read_train_settings(path)
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.json: No such file"):
        read_train_settings(tmp_path / "nothing.json")
