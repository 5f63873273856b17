from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.__main__ import cli


@pytest.mark.parametrize("flag", [["--units", "8"], ["--settings", "best.json"], ["--horizon-s", "5"]])
def test_a_model_that_is_there_is_not_trained_with_other_settings(flag: list[str], tmp_path: Path) -> None:
    command = ["models", "evaluate", "ticks", "--out", str(tmp_path), "--model", "model.onnx", *flag]
    done = CliRunner().invoke(cli, command)
    assert f"{flag[0].strip('-').replace('-', '_')} with --model, which trains nothing" in str(done.exception)
