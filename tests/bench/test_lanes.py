"""The bench is a program, so it is run: small, on real servers, with all peers but one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.features import COUNT

ROOT = Path(__file__).resolve().parents[2]
# Quix Streams is installed from a package index when it is first run.
PEERS = (
    "faust_agent",
    "faust_agent_ten",
    "aiokafka_loop",
    "confluent_loop",
    "confluent_blocks",
    "confluent_kernel",
    "plain_python",
    "plain_python_ten",
    "talipp_indicators",
    "talib_streams",
    "pandas_windows",
    "pandas_batch",
)


@pytest.mark.usefixtures("bench_group")
@pytest.mark.timeout(400)
def test_a_quick_run_measures_everything_and_all_peers_agree_with_the_engine(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "bench.lanes", "--quick", "--json", str(tmp_path / "report.json")]
    answer = subprocess.run(
        [*command, "--peers", *PEERS],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["troubles"] == []
    assert [row["name"] for row in report["peers"]] == list(PEERS)
    for row in report["peers"]:
        assert row["ticks"] > 0
        assert row["ticks_per_cpu_s"] > 0
        # The stretch row is the engine itself, and has nothing of its own to compare.
        assert (row["compared"] > 0) == (row["name"] != "confluent_kernel"), row
        if row["features"] == COUNT and row["compared"]:
            assert row["compared"] % (COUNT + 1) == 0, row
    assert {(row["symbols"], row["with_model"]) for row in report["worker"]} == {(3, False), (3, True)}
    assert {row["symbols"] for row in report["kernel"]} == {3, 100}
    not_measured = [goal["what"] for goal in report["goals"] if goal["seen"] is None]
    assert all("Quix" in what or "the same" in what for what in not_measured), not_measured
    assert "Goals" in answer.stdout
    assert list(scratch.glob("tickloom-*")) == [], "it leaves nothing behind"
