"""What `tickloom listen` understands and prints; over a real gateway: tests/exporters/client/test_feed.py."""

import time
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from exporters.client import Batch, Disconnected, Gap, Reset
from stream.__main__ import cli
from stream.errors import SettingsError
from stream.listen_command import _from_ns
from stream.listen_view import make_view
from stream.records import PREDICTION


def predictions(*symbols: str) -> Batch:
    records = np.zeros(len(symbols), PREDICTION)
    records["symbol"], records["seq"], records["p_up"] = symbols, 7, 0.5
    records["published_ns"] = 1_700_000_000_123_000_000
    return Batch("prediction", records, False, None, "e", 1)


def test_a_time_is_some_while_ago_or_a_date() -> None:
    assert abs(time.time_ns() - 600 * 10**9 - _from_ns("10m")) < 10**9
    assert _from_ns("2026-11-25T14:30:00") == int(datetime(2026, 11, 25, 14, 30, tzinfo=UTC).timestamp()) * 10**9
    assert _from_ns("2026-11-25T15:30:00+01:00") == _from_ns("2026-11-25T14:30:00")
    with pytest.raises(SettingsError, match=r"--from is 'soon'; right would be: 90s, 10m"):
        _from_ns("soon")


def test_all_since_a_time_and_only_the_newest_do_not_go_together() -> None:
    result = CliRunner().invoke(cli, ["listen", "AIG", "--from", "10m", "--mode", "latest"])
    assert isinstance(result.exception, SettingsError)


def test_json_has_an_object_a_line_and_losses_among_them(capsys: pytest.CaptureFixture[str]) -> None:
    with make_view("prediction", as_json=True) as view:
        view.show(predictions("AIG", "BAC"))
        view.show(Gap("prediction", "AIG", 7, 9))
        view.show(Reset("prediction", ("BAC",), "gone"))
        view.show(Disconnected("ws://here/feed", "closed"))
    lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("type", line.get("symbol")) for line in lines] == [
        "AIG",
        "BAC",
        "gap",
        "reset",
        "disconnected",
    ]
    assert lines[0]["p_up"] == 0.5


def test_lines_for_people_say_when_what_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with make_view("prediction", as_json=False) as view:
        view.show(predictions("AIG"))
        view.show(Gap("prediction", "AIG", 7, 9))
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["22:13:20.123", "AIG"]
    assert "p_up 50.0%" in first
    assert second == "! AIG: missing between seq 7 and 9"


def test_the_table_shows_the_newest_of_each_symbol(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with make_view("prediction", as_json=False) as view:
        view.show(predictions("AIG", "AIG", "BAC"))
    shown = capsys.readouterr().out
    assert "prediction: 3 messages" in shown
    assert shown.rstrip().count("50.0%") >= 2
