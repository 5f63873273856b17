"""What is compiled is compiled anew when anything that it was compiled from is edited."""

import re
import shutil
from pathlib import Path

import numba
import pytest

from stream import compiled

ROOT = Path(compiled.__file__).parents[1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Returns a copy of our packages."""
    for package in ("stream", "agents", "models", "exporters"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "champion")
        )
    return tmp_path


@pytest.mark.parametrize("edited", ["agents/kernel.py", "agents/checks.py", "agents/state.py", "stream/records.py"])
def test_an_edit_of_code_or_of_a_constant_makes_a_new_cache(copy: Path, edited: str) -> None:
    before = compiled.fingerprint(copy)
    assert before == compiled.fingerprint(ROOT)
    with (copy / edited).open("a") as file:
        file.write("# edited\n")
    assert compiled.fingerprint(copy) != before


def test_an_edit_of_what_is_not_compiled_keeps_the_cache(copy: Path) -> None:
    before = compiled.fingerprint(copy)
    with (copy / "agents/lanes.py").open("a") as file:
        file.write("# edited\n")
    assert compiled.fingerprint(copy) == before


def test_the_cache_lies_in_a_directory_of_that_name() -> None:
    assert numba.config.CACHE_DIR.endswith(f"numba-{compiled.fingerprint(ROOT)}")


def test_nothing_is_compiled_in_another_way() -> None:
    decorators = re.compile(r"\b(njit|numba\.jit|vectorize|guvectorize)\b")
    for package in ("stream", "agents", "models", "exporters"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "compiled.py":
                assert not decorators.search(path.read_text()), path
