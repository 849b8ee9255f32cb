"""What `celeriac check` says of what a package declares beside its contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.authors.checking import found_in
from shared.contract.installed import CONNECTIONS, connection_kinds


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install an empty package `printing`, and return its folder."""
    folder = tmp_path / "printing_odd"
    folder.mkdir()
    (folder / "__init__.py").write_text("PrintShop = 1\n", encoding="utf-8")
    about = tmp_path / "printing_odd-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: printing_odd\nVersion: 1.0\n", encoding="utf-8")
    points = "shop = printing_odd:PrintShop\nstudio = printing_odd:Studio\nother = elsewhere:Shop\n"
    (about / "entry_points.txt").write_text(f"[{CONNECTIONS}]\n{points}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    connection_kinds.cache_clear()
    yield folder
    connection_kinds.cache_clear()


def test_a_declared_connection_is_looked_at(package: Path) -> None:
    """Its class has to be there, and a model; those of other packages are not this one's."""
    shop, studio = found_in(package.name).faults
    assert shop == (
        "the entry point 'shop' of celeriac.connections (printing_odd:PrintShop) is not a Pydantic model. "
        "Name the class of the settings."
    )
    assert studio == (
        "the entry point 'studio' of celeriac.connections (printing_odd:Studio) cannot be imported: AttributeError: "
        "module 'printing_odd' has no attribute 'Studio'. Correct it in pyproject.toml."
    )
