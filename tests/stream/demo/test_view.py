"""What the demo's screen says of its parts."""

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from stream.demo.listener import FeedView
from stream.demo.view import Glance, Rates, render

CLICKHOUSE = {"received": 6_920, "written": 6_900, "lag_blocks": {"0": 60, "1": 0, "2": 3, "3": 0}}
OUTCOMES = {
    "model": "718e0a2ddc1319ff",
    "hit_rate": "64.9%",
    "fallback_hit_rate": "53.8%",
    "majority_hit_rate": "52.8%",
    "moved": 38_530,
    "rollbacks": 1,
    "settled": 48_202,
}


def part(name: str, health: dict[str, Any]) -> Any:
    role = SimpleNamespace(name=name)
    return SimpleNamespace(role=role, health=health, healthy=True, finished=False, alive=True, restarts=0)


def shown(*parts: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render(Glance("demo", "http://here/", [], {}, 1.0), parts, FeedView(), Rates()))
    return console.export_text()


def test_how_far_a_sink_is_behind_is_one_number_with_its_name() -> None:
    text = shown(part("clickhouse", CLICKHOUSE))
    assert "received 6,920, written 6,900, lag blocks 63" in text


def test_the_model_in_service_stands_there_with_its_hit_rate_beside_the_baselines() -> None:
    text = shown(part("outcomes", OUTCOMES))
    assert "model 718e0a2ddc1319ff   live hit rate 64.9%   fallback 53.8%   majority 52.8%" in text


def test_without_outcomes_nothing_is_claimed_of_a_model() -> None:
    assert "hit rate" not in shown(part("outcomes", {}), part("clickhouse", CLICKHOUSE))
