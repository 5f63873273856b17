import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from agents.metrics import LaneMetrics


@pytest.fixture
def promtool(tool: Callable[..., str], root: Path) -> Callable[..., None]:
    program = tool("promtool")

    def run(*arguments: str) -> None:
        command = [program, *arguments]
        answer = subprocess.run(
            command, cwd=root / "deploy/prometheus", capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr

    return run


@pytest.fixture(scope="session")
def alerts(root: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_promtool_accepts_configuration_and_rules(promtool: Callable[..., None]) -> None:
    promtool("check", "config", "prometheus.yml")


def test_the_rules_fire_when_they_should_and_not_when_all_is_well(promtool: Callable[..., None]) -> None:
    promtool("test", "rules", "alerts.test.yml")


def test_each_rule_has_a_case_that_fires_it_and_one_that_does_not(alerts: list[dict[str, Any]], root: Path) -> None:
    cases = yaml.safe_load((root / "deploy/prometheus/alerts.test.yml").read_text("utf-8"))["tests"]
    seen = {(case["alertname"], bool(case["exp_alerts"])) for test in cases for case in test["alert_rule_test"]}
    assert seen == {(rule["alert"], fires) for rule in alerts for fires in (False, True)}


def test_the_rules_use_what_the_roles_export(alerts: list[dict[str, Any]], exported: set[str]) -> None:
    used = {name for rule in alerts for name in re.findall(r"\b(?:tickloom|process)_\w+", rule["expr"])}
    assert used
    assert used - exported == set()


def test_the_rules_use_outcomes_of_ticks_that_there_are(
    alerts: list[dict[str, Any]], tick_outcomes: set[str]
) -> None:
    seen = re.findall(r'tickloom_ticks_total\{outcome!?~"([^"]+)"', " ".join(rule["expr"] for rule in alerts))
    assert seen
    assert {outcome for choice in seen for outcome in choice.split("|")} - tick_outcomes == set()


def test_the_rules_name_stages_that_a_worker_has(alerts: list[dict[str, Any]]) -> None:
    named = set(re.findall(r'job="worker", stage="(\w+)"', " ".join(rule["expr"] for rule in alerts)))
    assert named
    assert named <= set(LaneMetrics(CollectorRegistry()).stages.stages)


def test_prometheus_asks_every_role_of_the_compose_file(roles: dict[str, dict[str, Any]], root: Path) -> None:
    jobs = yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    ours = [job for job in jobs if job["job_name"] != "clickhouse"]
    assert {job["job_name"] for job in ours} == set(roles) - {"topics"}
    for job in ours:
        assert job["dns_sd_configs"][0]["names"] == [job["job_name"]]
        assert job["dns_sd_configs"][0]["port"] == 9100


def test_prometheus_asks_clickhouse_where_it_answers(root: Path) -> None:
    jobs = yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    port = re.search(r"<port>(\d+)</port>", (root / "deploy/clickhouse/server.xml").read_text("utf-8"))
    assert port is not None
    assert [job["static_configs"] for job in jobs if job["job_name"] == "clickhouse"] == [
        [{"targets": [f"clickhouse:{port[1]}"]}]
    ]
