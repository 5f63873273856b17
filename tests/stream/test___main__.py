"""The command line as a user meets it: help, exit codes, and messages that say what would be right."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stream.__main__ import cli
from stream.embedded.kafka import EmbeddedKafka
from stream.topics import STATE_CHANGELOG

COMMANDS = sorted(command.name or command.callback.__name__ for command in cli.registered_commands)


def tickloom(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a clean environment."""
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "200", **variables}
    argv = [sys.executable, "-m", "stream", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_there_is_every_command_that_the_documentation_names() -> None:
    wanted = {"demo", "ingest", "replay", "worker", "export", "gateway", "train", "topics", "state", "version"}
    wanted |= {"halt", "resume"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    answer = tickloom(command, "--help")
    assert answer.returncode == 0
    assert "Example: " in answer.stdout
    assert f"tickloom {command}" in answer.stdout.split("Example: ")[1]


def test_version_gives_json_for_machines() -> None:
    versions = json.loads(tickloom("version", "--json").stdout)
    assert versions["tickloom"] == "0.1.0"
    assert versions["faust-streaming"] == "0.15.3"


def test_features_are_listed_as_the_periods_make_them() -> None:
    answer = tickloom("features", "--json", TICKLOOM_TICK_RSI="21", TICKLOOM_BARS_S="5,60")
    rows = json.loads(answer.stdout)
    assert [row["place"] for row in rows] == list(range(80))
    assert rows[5] == {
        "place": 5,
        "feature": "rsi_21",
        "unit": "0..100",
        "formula": "Wilder's RSI over 21 ticks; 50 while nothing moved",
    }
    assert rows[56]["feature"] == "bar_5s_sma_20_gap_bps"


def test_a_replay_can_compute_features_instead_of_sending_ticks(tmp_path: Path) -> None:
    trades, out = tmp_path / "trades_X_20240102.csv", tmp_path / "features.parquet"
    lines = [f"{1_704_200_000_000_000_000 + second * 10**9},X,{100 + second},1" for second in range(90)]
    trades.write_text("\n".join(["ts_ns,symbol,price,size", *lines, f"{1_704_200_090_000_000_000},X,-1,1"]))
    answer = tickloom("replay", str(trades), "--features", str(out))
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"accepted": 90, "not_positive": 1}
    assert "ticks" in answer.stderr  # the progress
    table = pq.read_table(out)
    assert table["ref_price"].to_pylist() == [100.0 + second for second in range(90)]
    assert table["rsi_14"].to_pylist()[-1] == 100.0
    assert table["bar_60s_roc_10_bps"].to_pylist()[-1] == 0.0


def test_features_and_what_belongs_to_sending_do_not_go_together(tmp_path: Path) -> None:
    answer = tickloom("replay", str(tmp_path), "--features", str(tmp_path / "x.parquet"), "--speed", "max")
    assert answer.returncode == 2
    assert "--features sends nothing" in answer.stderr


def test_settings_are_shown_with_their_origin_and_without_secrets() -> None:
    answer = tickloom("settings", "--json", TICKLOOM_FEED_TOKEN="s3cret-token-0123456789", TICKLOOM_PARTITIONS="8")
    rows = {row["setting"]: row for row in json.loads(answer.stdout)}
    assert rows["partitions"]["value"] == 8
    assert rows["partitions"]["origin"] == "environment"
    assert rows["linger_ms"]["origin"] == "default"
    assert "s3cret" not in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (["settings"], {"TICKLOOM_PARTITONS": "8"}, 2, "did you mean 'partitions'"),
        (["settings"], {"TICKLOOM_PARTITIONS": "none"}, 2, "partitions"),
        (["worker"], {}, 2, "TICKLOOM_KAFKA"),
        (["state", "AIG"], {}, 2, "TICKLOOM_KAFKA"),
        (["halt", "AIG"], {}, 2, "TICKLOOM_KAFKA"),
        (["halt"], {}, 2, "SYMBOL"),
        (["halt", "A B", "--kafka", "127.0.0.1:9"], {}, 1, "not 'A B'"),
        (["resume", "AIG", "--at", "2999-01-01", "--kafka", "127.0.0.1:9"], {}, 2, "still to come"),
        (["worker", "--kafka", "127.0.0.1:9"], {"TICKLOOM_SYMBOLS": "@/nowhere"}, 2, "/nowhere"),
        (["worker", "--kafka", "127.0.0.1:9"], {"TICKLOOM_OUTLIER_BPS": "0"}, 2, "outlier_bps"),
        (["topics", "--forget-state", "--kafka", "127.0.0.1:9"], {}, 2, "--yes"),
        (["demo", "--day", "2013-10-07"], {}, 2, "--replay"),
        (["ingest", "binance", "--kafka", "127.0.0.1:9"], {}, 2, "--symbols"),
        (["replay", "/nowhere", "--kafka", "127.0.0.1:9"], {}, 3, "/nowhere"),
        (["worker", "--kafka", "127.0.0.1:9", "--model", "/nowhere.onnx"], {}, 4, "/nowhere.onnx"),
        (["train", "--out", "m.onnx", "--features", "f", "--kafka-days", "1"], {}, 2, "right would be at most one"),
        (["train", "--out", "m.onnx", "--kafka-days", "-1"], {}, 2, "right would be above 0"),
        (["train", "--out", "m.onnx", "--kafka-days", "1"], {}, 2, "TICKLOOM_KAFKA"),
        (["train", "--out", "m.onnx", "--clickhouse-days", "0"], {}, 2, "--clickhouse-days is 0.0; right would be"),
        (["train", "--out", "m.onnx", "--clickhouse-days", "1"], {}, 2, "TICKLOOM_CLICKHOUSE"),
        (["train", "--out", "m.onnx", "--take", "rsi_99"], {}, 2, "rsi_99"),
        (["models", "evaluate", ".", "--out", "o", "--take", "-*"], {}, 2, "leaves no feature"),
        (["train", "--out", "m.onnx", "--settings", "/nowhere.json"], {}, 2, "/nowhere.json: No such file"),
        (["models", "search", "ticks", "--out", "o", "--horizons", "1,x"], {}, 2, "right would be seconds"),
        (["models", "search", "/nowhere", "--out", "o"], {}, 3, "/nowhere"),
        (["models", "benchmark", "stocknet", "/nowhere.parquet"], {}, 3, "right would be Parquet"),
        (["--config", "/nowhere.toml", "settings"], {}, 2, "/nowhere.toml"),
    ],
)
def test_a_mistake_is_one_plain_line_and_an_exit_code(
    arguments: list[str], variables: dict[str, str], code: int, said: str
) -> None:
    answer = tickloom(*arguments, **variables)
    assert answer.returncode == code
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_workers_are_made_to_start_over(kafka: EmbeddedKafka) -> None:
    answer = tickloom("topics", "--forget-state", "--yes", "--json", "--kafka", kafka.bootstrap)
    assert answer.returncode == 0, answer.stderr
    messages = {row["topic"]: row["messages"] for row in json.loads(answer.stdout)}
    assert messages[STATE_CHANGELOG] == 0


def test_a_settings_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tickloom.toml"
    path.write_text("partitions = 16\n")
    rows = json.loads(tickloom("--config", str(path), "settings", "--json").stdout)
    assert next(row for row in rows if row["setting"] == "partitions")["value"] == 16
