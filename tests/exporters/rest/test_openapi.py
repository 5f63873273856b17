"""The description against the running API: schemathesis makes requests of it, and judges each answer."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporters.rest.problems import KINDS

HERE = Path(__file__).parent


@pytest.mark.timeout(400)
def test_every_route_answers_as_it_is_described(api: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    # The queries of the book and explanations have tests of their own: each takes ClickHouse, or a model, seconds.
    command += [f"{api.where.api}/openapi.json", "--exclude-path-regex", "^/v1/queries/.+|/explain$"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert " failed" not in done.stdout


def test_each_error_has_an_example_and_a_code_of_its_own(api: Any) -> None:
    document = api.get("/openapi.json").json
    seen = set()
    for path in document["paths"].values():
        for answer in path["get"]["responses"].values():
            examples = answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
            seen |= {each["value"]["code"] for each in examples.values()}
    of_any_request = {"bad-request", "method-not-allowed", "wrong-host", "internal"}
    assert seen == {kind.code for kind in KINDS} - of_any_request


def test_each_answer_has_an_example(api: Any) -> None:
    for path, operations in api.get("/openapi.json").json["paths"].items():
        content = operations["get"]["responses"]["200"]["content"].get("application/json")
        assert content is not None, path
        assert "example" in content or path.endswith("/card"), path
