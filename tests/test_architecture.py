"""The shape of the code: who may import whom, and that files are where a newcomer looks for them."""

import ast
import functools
import importlib.metadata
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stream", "agents", "models", "exporters")  # data flows right, imports point left
# The composition root: the command line, what it wires, and what it shows.
ROOT_FILES = (
    "stream/__main__.py",
    "stream/compose.py",
    "stream/api_commands.py",
    "stream/inspection.py",
    "stream/analyst_commands.py",
    "stream/archive_commands.py",
    "stream/listen_command.py",
    "stream/listen_view.py",
    "stream/model_commands.py",
    "stream/clickhouse_commands.py",
    "stream/judge_commands.py",
    "stream/registry_commands.py",
    "stream/nights.py",
    "stream/retrain_commands.py",
    "stream/search_commands.py",
    "stream/training.py",
    "stream/train_on.py",
    "stream/demo/",
)
# Only these may need the `train` extra, and only once they are called.
TRAINING = (
    *("lstm", "train", "trainer", "export", "evaluate", "retrain", "dataset", "baselines", "diebold_mariano"),
    *("search", "search_folds", "stocknet_lstm", "direct"),
)
TRAINING_LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "h5py", "sklearn", "scipy", "optuna")
LONGEST_MODULE = 400
# Kinds of test that belong to no single module.
FREE_FOLDERS = ("live", "chaos", "deploy")
CROSSING = (Path("test_architecture.py"), Path("models/test_serving_imports.py"))


def modules() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts)


def is_root(path: Path) -> bool:
    return path.as_posix().startswith(ROOT_FILES)


@functools.cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Return each imported module, with its line, and whether it is imported when the file is."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    tree = ast.parse((ROOT / path).read_text("utf-8"), str(path))
    deferred = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for inner in ast.walk(node)
        if inner is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node not in deferred
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.module, node.lineno, node not in deferred
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, node not in deferred


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def owner(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_left(path: Path) -> None:
    if is_root(path):
        return
    allowed = PACKAGES[: PACKAGES.index(path.parts[0]) + 1]
    for module, line, _ in imports(path):
        if owner(module) in (*PACKAGES, "bench", "tests"):
            assert owner(module) in allowed, (
                f"{path}:{line} imports {module}; it may import from {', '.join(allowed)}"
            )


@pytest.mark.parametrize("path", modules(), ids=str)
def test_nobody_imports_the_composition_root(path: Path) -> None:
    if is_root(path):
        return
    roots = tuple(name.removesuffix(".py").rstrip("/").replace("/", ".") for name in ROOT_FILES)
    for module, line, _ in imports(path):
        assert not any(module == root or module.startswith(f"{root}.") for root in roots), (
            f"{path}:{line} imports {module}, of the composition root"
        )


@pytest.mark.parametrize("path", modules(), ids=str)
def test_only_training_needs_the_training_libraries_and_only_when_it_is_called(path: Path) -> None:
    for module, line, at_import in imports(path):
        if owner(module) in TRAINING_LIBRARIES:
            assert path.parts[0] == "models", f"{path}:{line} imports {module}"
            assert path.stem in TRAINING, f"{path}:{line} imports {module}; only {TRAINING} may"
            assert not at_import, f"{path}:{line} imports {module} when it is imported; import it in the function"


def test_no_module_imports_itself() -> None:
    # A file named like the dependency that it imports at the top finds itself when run as a script.
    for path in modules():
        for module, line, _ in imports(path):
            assert module != path.stem, f"{path}:{line} imports {module}, and has its name"


def test_no_module_is_too_long_to_read() -> None:
    lengths = {str(path): len((ROOT / path).read_text("utf-8").splitlines()) for path in modules()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_folder_is_named_for_what_does_not_matter() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "base", "core", "misc"}
    assert [str(path) for path in modules() if vague & {part.removesuffix(".py") for part in path.parts}] == []


def test_packages_export_nothing_from_their_init() -> None:
    for path in modules():
        # Others program against the client, by this name; how it is made is its own affair.
        if path.name == "__init__.py" and path != Path("exporters/client/__init__.py"):
            body = ast.parse((ROOT / path).read_text("utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), f"{path} has code"


def test_every_test_file_mirrors_a_module() -> None:
    tests = sorted(path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py"))
    for path in set(tests) - set(CROSSING):
        if path.parts[0] in FREE_FOLDERS:
            continue
        module = path.with_name(path.name.removeprefix("test_"))
        # A folder counts: what it holds is tested as a whole. So does what runs in browsers.
        script = ROOT / module.with_suffix(".js")
        found = (ROOT / module).is_file() or script.is_file() or (ROOT / module.with_suffix("")).is_dir()
        assert found, f"tests/{path}: no {module}"


def test_no_folder_of_tests_is_a_package() -> None:
    # tests/stream/__init__.py would make `import stream` find the tests.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", [*PACKAGES, "bench"])
def test_a_package_is_ours_and_nobody_elses(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().is_relative_to(ROOT)
    owners = set(importlib.metadata.packages_distributions().get(package, ()))
    assert owners <= {"tickloom"}


def test_the_version_is_the_newest_of_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    entries = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert entries[0] == version
    assert importlib.metadata.version("tickloom") == version
