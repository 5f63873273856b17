import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("bench_group")
def test_a_short_soak_predicts_once_for_each_tick_and_says_how_much_it_grew(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.1", "--rate", "2000"]
    answer = subprocess.run(
        [*command, "--json", str(tmp_path / "report.json")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["ticks"] == report["predictions"] == report["outcomes"]["accepted"] == 12_000
    assert report["missing"] == 0
    assert set(report["growth"]) == {"rss_mb", "cpu_percent", "lag_ticks", "p50_ms", "p99_ms"}
    assert 50 < report["growth"]["rss_mb"]["mean"] < 2_000
    assert report["growth"]["p50_ms"]["mean"] > 0
