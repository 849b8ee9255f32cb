"""Which programs a changed file concerns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from cli.local.sources import Sources


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a package whose contracts are imported, as in `celeriac up`, and whose tasks are not."""
    folder = tmp_path / "reloaded"
    (folder / "tasks").mkdir(parents=True)
    for name in ("__init__.py", "contracts.py", "texts.py", "tasks/__init__.py", "tasks/one.py"):
        (folder / name).write_text("", encoding="utf-8")
    (folder / "contracts.py").write_text("import reloaded.tasks.shared", encoding="utf-8")
    (folder / "tasks" / "shared.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_module("reloaded.contracts")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "reloaded"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "concerns_workers_only"),
    [
        ("tasks/one.py", True),
        ("tasks/new.py", True),
        ("tasks/shared.py", False),  # the contracts import it
        ("contracts.py", False),
        ("texts.py", False),  # whoever may import it
    ],
)
def test_a_file_of_tasks_concerns_workers_only(package: Path, file: str, *, concerns_workers_only: bool) -> None:
    """Unless the contracts have imported it."""
    sources = Sources(["reloaded.contracts"], ["reloaded.tasks", "nowhere.tasks"])
    assert sources.only_tasks([str(package / file)]) is concerns_workers_only


def test_after_a_changed_contract_every_file_concerns_all(package: Path) -> None:
    """It may import by now what only tasks had."""
    sources = Sources(["reloaded.contracts"], ["reloaded.tasks"])
    assert not sources.only_tasks([str(package / "contracts.py"), str(package / "tasks/one.py")])
    assert not sources.only_tasks([str(package / "tasks/one.py")])
