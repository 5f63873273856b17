import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_driver import Client
from prometheus_client import CollectorRegistry

from exporters.clickhouse.schema import migrate
from exporters.feed_metrics import FeedMetrics
from stream.embedded.clickhouse import EmbeddedClickHouse

Dashboard = dict[str, Any]

# What the plugin puts in place of its macros, for the last hour.
_MACROS = {
    r"\$__timeFilter\((\w+)\)": r"\1 >= now() - INTERVAL 1 HOUR AND \1 <= now() + INTERVAL 1 SECOND",
    r"\$__timeInterval\((\w+)\)": r"toStartOfInterval(toDateTime(\1), INTERVAL 5 second)",
    r"\$\{symbol\}": "AIG",
    r"\$__fromTime": "(now() - INTERVAL 1 HOUR)",
    r"\$__toTime": "now()",
    r"\$disk_usd": "0.1",
}


NAMES = ("cost", "engine", "feed", "models", "quality", "trading")


@pytest.fixture(params=NAMES)
def dashboard(root: Path, request: pytest.FixtureRequest) -> Dashboard:
    parsed: Dashboard = json.loads((root / f"deploy/grafana/dashboards/{request.param}.json").read_text("utf-8"))
    return parsed


@pytest.fixture(scope="session")
def sources(root: Path) -> dict[str, dict[str, Any]]:
    """The data sources by uid."""
    text = (root / "deploy/grafana/provisioning/datasources/tickloom.yml").read_text("utf-8")
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


def targets(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel.get("targets", [])


def test_the_dashboards_are_what_the_script_makes(root: Path, tmp_path: Path) -> None:
    folder = root / "deploy/grafana"
    shutil.copytree(folder, tmp_path / "grafana", ignore=shutil.ignore_patterns("dashboards"))
    subprocess.run([sys.executable, tmp_path / "grafana/make.py"], check=True, capture_output=True)
    made = {path.name: path.read_text("utf-8") for path in (tmp_path / "grafana/dashboards").iterdir()}
    there = {path.name: path.read_text("utf-8") for path in (folder / "dashboards").iterdir()}
    assert made == there, "run: python3 deploy/grafana/make.py"
    assert sorted(there) == [f"{name}.json" for name in NAMES]


def test_every_panel_asks_a_data_source_that_is_provisioned(
    dashboard: Dashboard, sources: dict[str, dict[str, Any]]
) -> None:
    asked = {(target["datasource"]["uid"], target["datasource"]["type"]) for target in targets(dashboard)}
    assert asked
    assert asked <= {(uid, source["type"]) for uid, source in sources.items()}


def test_the_data_sources_are_services_of_the_compose_file(
    sources: dict[str, dict[str, Any]], compose: dict[str, Any]
) -> None:
    assert sources["prometheus"]["url"].removeprefix("http://").split(":")[0] in compose["services"]
    assert sources["clickhouse"]["jsonData"]["host"] in compose["services"]
    grafana = compose["services"]["grafana"]["environment"]
    assert sources["clickhouse"]["type"] == grafana["GF_PLUGINS_PREINSTALL"].split("@")[0]
    assert sources["clickhouse"]["secureJsonData"]["password"].removeprefix("$") in grafana
    database = compose["services"]["clickhouse"]["environment"]["CLICKHOUSE_DB"]
    assert sources["clickhouse"]["jsonData"]["defaultDatabase"] == database


def test_the_provider_reads_where_the_dashboards_are_mounted(compose: dict[str, Any], root: Path) -> None:
    text = (root / "deploy/grafana/provisioning/dashboards/tickloom.yml").read_text("utf-8")
    path = yaml.safe_load(text)["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{path}:ro" in compose["services"]["grafana"]["volumes"]


def test_the_panels_use_what_the_roles_export(
    dashboard: Dashboard, exported: set[str], tick_outcomes: set[str]
) -> None:
    expressions = " ".join(target.get("expr", "") for target in targets(dashboard))
    used = set(re.findall(r"\b(?:tickloom|process)_\w+", expressions))
    assert used
    assert used - exported == set()
    outcomes = {one for some in re.findall(r'outcome!?=~?"([^"]+)"', expressions) for one in some.split("|")}
    assert outcomes - tick_outcomes - {"applied", "lost_to_retention"} == set()


def test_prometheus_understands_every_panel(dashboard: Dashboard, tmp_path: Path, tool: Callable[..., str]) -> None:
    rules = [
        {
            "record": f"panel:{index}",
            "expr": re.sub(r"\$\w+_usd", "1", target["expr"].replace("$__rate_interval", "1m")),
        }
        for index, target in enumerate(targets(dashboard))
        if "expr" in target
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    answer = subprocess.run(
        [tool("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_clickhouse_understands_every_panel(
    dashboard: Dashboard, clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]
) -> None:
    queries = [target["rawSql"] for target in targets(dashboard) if "rawSql" in target]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    with Client.from_url(clickhouse.url) as client:
        database = fresh_name("grafana")
        client.execute(f"CREATE DATABASE {database}")
        client.execute(f"USE {database}")
        migrate(client)
        client.execute(
            "INSERT INTO predictions (symbol, seq, event_time, recv_time) VALUES ('AIG', 1, now64(9), now64(9))"
        )
        for query in queries:
            client.execute(without_macros(query))


def without_macros(query: str) -> str:
    for macro, text in _MACROS.items():
        query = re.sub(macro, text, query)
    return query


def test_no_two_panels_overlap(dashboard: Dashboard) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_stages_are_those_of_the_gateway(dashboard: Dashboard) -> None:
    expressions = " ".join(target.get("expr", "") for target in targets(dashboard))
    named = set(re.findall(r'job="gateway", stage="(\w+)"', expressions))
    assert named == set(re.findall(r'stage="(\w+)"', expressions))
    assert named <= set(FeedMetrics(CollectorRegistry()).stages.stages)
