"""What is noted of a run stands beside what other runs found."""

import json
from pathlib import Path
from typing import Any

import pytest


def report(ticks: int, **ms_of: float) -> dict[str, Any]:
    return {
        "ticks": ticks,
        "queries": [{"query": name, "of": "everything", "ms": ms} for name, ms in ms_of.items()],
    }


@pytest.mark.usefixtures("bench_group")
def test_a_run_replaces_what_it_asked_again_and_keeps_the_rest(tmp_path: Path) -> None:
    from bench.query_book import note

    file = tmp_path / "measured.json"
    for each in (report(100, b=1.0, a=2.0), report(10, a=3.0), report(100, b=4.0)):
        note(file, each)
    day, whole = json.loads(file.read_text("utf-8"))
    assert (day["ticks"], whole["ticks"]) == (10, 100)
    assert [(each["query"], each["ms"]) for each in whole["queries"]] == [("a", 2.0), ("b", 4.0)]
    assert [(each["query"], each["ms"]) for each in day["queries"]] == [("a", 3.0)]
