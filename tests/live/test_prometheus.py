"""A real Prometheus asks a running engine, and every panel and alert of ours finds what it asks for."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from stream.embedded.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
JOBS = {
    "source": "source",
    "worker": "worker",
    "exporter-redis": "redis",
    "exporter-clickhouse": "clickhouse",
    "outcomes": "outcomes",
    "gateway": "gateway",
    "api": "api",
    "archiver": "archiver",
}
# What nothing has happened of in a short and healthy run, and ClickHouse's own metrics (its container has them).
QUIET = (
    r"tickloom_(source_(gaps|missed|disconnects|connected)|publish_failures|rejected_ticks|marked_ticks|bad_blocks|"
    r"feed_(refused|bad_messages|resumes)|api_refused|model_trial|symbol_)|ClickHouse|ALERTS|"
    r"tickloom_model_(hit_rate|fallback|majority|brier|log_loss|information|net_profit|swap_wait|load)|"
    r"answer_drift|feature_drift|checkpoint_seconds|blocks_total\{outcome!="
)


@pytest.mark.timeout(300)
async def test_panels_and_alerts_find_what_a_running_engine_exports(engine: Any, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        reason = "there is no prometheus on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    await _start_every_role(engine, tmp_path)
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(_configuration(engine))
    flags = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *flags], cwd=tmp_path, stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            visitor = asyncio.create_task(_visit(engine.settings.api_port))
            await _until_known(session)
            empty, broken = [], []
            for query in _queries():
                answer = await _ask(session, query)
                if answer["status"] != "success":
                    broken.append((query, answer["error"]))
                elif not answer["data"]["result"] and not re.search(QUIET, query):
                    empty.append(query)
            assert broken == []
            assert empty == []
            targets = await _get(session, "/api/v1/targets")
            assert {
                target["labels"]["job"]: target["health"] for target in targets["activeTargets"]
            } == dict.fromkeys(JOBS, "up")
            rules = [rule for group in (await _get(session, "/api/v1/rules"))["groups"] for rule in group["rules"]]
            assert len(rules) > 20
            assert [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")] == []
            assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
            visitor.cancel()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


async def _start_every_role(engine: Any, tmp_path: Path) -> None:
    changes = {"archive_every_s": 2.0, "api_port": free_port()}
    engine.settings = engine.settings.model_copy(update=changes)
    await engine.start("worker", "worker", "--name", "worker")
    await engine.start_ways_out()
    await engine.start("outcomes", "outcomes", ready=False)
    await engine.start("api", "api", ready=False)
    await engine.start("archiver", "archive", "run", str(tmp_path / "archive"), ready=False)
    await engine.start("source", "ingest", "simulator", "--rate", "200", ready=False)
    await engine.until(lambda: all(part.healthy for part in engine.parts.values()), "every role is ready")


async def _visit(port: int) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/v1/predictions/latest") as answer:
                await answer.read()
            await asyncio.sleep(0.3)


def _configuration(engine: Any) -> str:
    scrape = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{engine.parts[name].port}"]}]}
        for job, name in JOBS.items()
    ]
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy/prometheus/alerts.yml")],
            "scrape_configs": scrape,
        }
    )


def _queries() -> list[str]:
    found = []
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            found += [target["expr"] for target in panel.get("targets", []) if "expr" in target]
    assert len(found) > 80
    return [re.sub(r"\$\w+_usd", "1", query.replace("$__rate_interval", "15s")) for query in found]


async def _until_known(session: aiohttp.ClientSession) -> None:
    """Wait until Prometheus has seen predictions go all the way, for long enough to tell a rate."""
    query = 'rate(tickloom_predictions_written_total{job="exporter-clickhouse"}[15s]) > 0'
    for _ in range(120):
        try:
            if (await _ask(session, query))["data"]["result"]:
                break
        except aiohttp.ClientError:
            pass  # it starts
        await asyncio.sleep(0.5)
    else:
        raise AssertionError(f"Prometheus did not find {query}")
    await asyncio.sleep(5)


async def _ask(session: aiohttp.ClientSession, query: str) -> Any:
    async with session.get("/api/v1/query", params={"query": query}) as answer:
        return await answer.json()


async def _get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        return (await answer.json())["data"]
