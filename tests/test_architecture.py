"""Rules of the tree that import-linter does not see: what an image copies is enough, names, and sizes of files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from shared.contract.families import FAMILIES
from tests.support.images import copies_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "celeriac", "cli", "shared", "worker")
SOURCES = (*PACKAGES, "bench", "deploy", "tests", "examples")
LONGEST_FILE = 400
MOST_MODULES = 13  # a dozen names are taken in at a glance; one more, so that the last one to come need not move others
BANNED = {"manager", "helper", "helpers", "utils", "util", "common", "data", "process", "handle"}
HEAVY = ("pandas", "numpy", "sklearn", "duckdb", "pyarrow")

_IMPORT_ALL = """
import importlib, pkgutil, sys
blocked = set(sys.argv[2].split(","))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

sys.meta_path.insert(0, Absent())
for package in sys.argv[1].split(","):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        importlib.import_module(found.name)
print(",".join(sorted(blocked & set(sys.modules))))
"""


def _python_files() -> list[Path]:
    return [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _copied(into: Path, *names: str) -> None:
    """Lay these parts of the tree out in a folder of their own, by links: what is compiled need not be again."""
    for name in names:
        for path in sorted(ROOT.glob(name)):
            target = into / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def _imported(folder: Path, packages: str, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Import every module of `packages` from `folder` alone, with `blocked` unavailable."""
    command = [sys.executable, "-P", "-c", _IMPORT_ALL, packages, ",".join(blocked)]
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_gateway_image_contents_import_without_heavy_libraries_and_without_the_worker(tmp_path: Path) -> None:
    """What Dockerfile.api copies imports with pandas, NumPy, scikit-learn, DuckDB, Arrow and the worker blocked."""
    _copied(tmp_path, "api", "shared")
    imported = _imported(tmp_path, "api,shared", (*HEAVY, "worker", "cli"))
    assert imported.stderr == ""
    assert imported.stdout.strip() == ""


def test_flower_and_beat_load_the_application_without_any_family(tmp_path: Path) -> None:
    """`worker.app` without WORKER_FAMILIES needs no family's folder, no heavy library and no gateway."""
    _copied(tmp_path, "celeriac", "shared", "worker/*.py", "worker/runtime", "worker/upkeep", "worker/reach")
    command = [sys.executable, "-P", "-c", _IMPORT_ALL.replace("sys.argv[1].split", "'shared'.split")]
    command[-1] += "\nimport worker.app, worker.upkeep.alive, worker.beat\n"
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    blocked = ",".join((*HEAVY, "httpx", "fastapi", "api", "cli"))
    loaded = subprocess.run(
        [*command, "", blocked], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert loaded.stderr == ""


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _absent_from(lock: Path) -> set[str]:
    """Return the third-party modules that are installed here and that a requirements file does not bring."""
    pinned = {
        canonicalize_name(name)
        for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", lock.read_text(), re.MULTILINE)
    }
    here = _distributions()
    brought = {module for module, names in here.items() if pinned & {canonicalize_name(name) for name in names}}
    return set(here) - brought - {"celeriac", "shared", "worker"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_image_has_all_that_its_workers_import(family: str, tmp_path: Path) -> None:
    """What Dockerfile.worker copies for a family loads as its worker, with the packages of its own pins alone."""
    _copied(tmp_path, *copies_of(family) or ())
    blocked = _absent_from(ROOT / "requirements" / f"worker-{family}.txt")
    assert {"fastapi", "api", "weasyprint"} <= blocked
    command = [sys.executable, "-P", "-c", f"{_IMPORT_ALL}\nimport worker.app", f"worker.{family}", ",".join(blocked)]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    loaded = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"WORKER_FAMILIES": family, "MPLCONFIGDIR": tempfile.gettempdir()},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert loaded.stderr == ""
    assert loaded.returncode == 0


def test_the_block_of_an_import_blocks(tmp_path: Path) -> None:
    """The tests above can fail: a module that imports a blocked library is found."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("import numpy.linalg\n")
    assert "numpy is not in the image" in _imported(tmp_path, "gateway", HEAVY).stderr


def test_files_stay_short() -> None:
    """No file of Python, Lua or Jinja has more than 400 lines."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for source in SOURCES
        for path in (ROOT / source).rglob("*")
        if path.suffix in {".py", ".lua", ".jinja"}
    }
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def _modules(folder: Path) -> list[Path]:
    """Return the modules that lie right in a folder: of Python, and parts of the script."""
    found = [*folder.glob("*.py"), *folder.glob("*.lua")]
    return [path for path in found if path.stem not in {"__init__", "conftest"}]


def _folders(*sources: str) -> list[Path]:
    return [folder for source in sources for folder in (ROOT / source).glob("**/") if _modules(folder)]


def test_folders_stay_small() -> None:
    """No folder has more than 13 modules: what grows beyond gets rooms with names of their own."""
    counts = {str(folder.relative_to(ROOT)): len(_modules(folder)) for folder in _folders(*PACKAGES, "tests")}
    assert len(counts) > len(PACKAGES)
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without `__init__.py` says nothing of what it holds, and a wheel leaves it out."""
    with_python = [folder for folder in _folders(*PACKAGES) if list(folder.glob("*.py"))]
    assert [folder for folder in with_python if not (folder / "__init__.py").is_file()] == []


def test_no_module_class_or_function_has_a_name_that_says_nothing() -> None:
    """Names such as manager, utils or process say nothing of what a thing is for."""
    assert [name for path in _python_files() for name in _empty_names(path)] == []


def _empty_names(path: Path) -> Iterator[str]:
    if path.stem.lower() in BANNED:
        yield f"{path.relative_to(ROOT)}"
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            last_word = re.split(r"_|(?<=[a-z])(?=[A-Z])", node.name)[-1].lower()
            whole = node.name.strip("_").lower()
            if whole in BANNED or (isinstance(node, ast.ClassDef) and last_word in {"manager", "helper", "utils"}):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("source", PACKAGES)
def test_every_module_says_what_it_is_for(source: str) -> None:
    """Each module begins with a docstring."""
    silent = [path for path in (ROOT / source).rglob("*.py") if not ast.get_docstring(_parsed(path))]
    assert silent == []


_NAMED = re.compile(r"`((?:api|bench|celeriac|cli|deploy|docs|shared|tests|worker)/[\w./-]*)(?:::([\w.]+))?`")
_PAGES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "architecture.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
_DECISIONS = [path for path in _PAGES if re.match(r"\d{4}-", path.name)]


def _defined(path: Path) -> set[str]:
    """Return what a module defines: functions, classes, constants, and `Class.method`."""
    found = set()
    for node in _parsed(path).body:
        if isinstance(node, ast.ClassDef):
            members = [member for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {node.name, *(f"{node.name}.{member.name}" for member in members)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_what_pages_on_the_code_name_exists(page: Path) -> None:
    """Every `path` and `path::function` on the pages for maintainers is there."""
    named = _NAMED.findall(page.read_text("utf-8"))
    missing = [path for path, _ in named if not (ROOT / path).exists()]
    assert missing == []
    assert [f"{path}::{name}" for path, name in named if name and name not in _defined(ROOT / path)] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    """They are numbered from 1 without a gap."""
    assert sorted(int(page.name[:4]) for page in _DECISIONS) == list(range(1, len(_DECISIONS) + 1))


@pytest.mark.parametrize("page", _DECISIONS, ids=lambda page: page.stem)
def test_a_decision_says_why_and_what_enforces_it(page: Path) -> None:
    """A decision has the parts of the template, is in the index under its title, and names a test."""
    text, index = page.read_text("utf-8"), (page.parent / "README.md").read_text("utf-8")
    title = text.partition("\n")[0].removeprefix("# ")
    assert f"| [{int(page.name[:4])}]({page.name}) | {title} |" in index
    parts = re.findall(r"^\*\*(.+?)\*\*", (page.parent / "template.md").read_text("utf-8"), re.MULTILINE)
    assert [part for part in parts if f"\n**{part}**" not in text] == []
    assert "`tests/" in text.partition("**Enforced by**")[2]
