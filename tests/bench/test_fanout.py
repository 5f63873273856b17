import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("bench_group")
def test_a_short_run_delivers_every_message_once_to_every_client_that_reads(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.fanout",
        "--servers",
        "tickloom",
        "--cells",
        "100x200",
        "--seconds",
        "1",
    ]
    answer = subprocess.run(
        [*command, "--json", str(tmp_path / "report.json")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-3000:]
    (cell,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["cells"]
    assert cell["stalled"] == 1
    assert (cell["out_of_order_or_missing"], cell["unreadable"], cell["closed"]) == (0, 0, 0)
    assert 10_000 < cell["deliveries_per_s"] < 25_000  # 99 x 200 are due
    assert 0 < cell["latency_us"]["p50"] <= cell["latency_us"]["p99"] <= cell["latency_us"]["max"]
