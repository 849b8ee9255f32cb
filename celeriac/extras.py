"""The extras of the package, such as `etl` in `pip install celeriac[etl]`, and which of them are installed."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

_PACKAGE = "celeriac"


def missing(*extras: str) -> list[str]:
    """Return the names of the distributions that these extras ask for and that are not installed, in order.

    Empty in a tree that was not installed as a package: an image contains what its families need.
    """
    return sorted({name for extra in extras for name in _missing(extra)})


def how_to_install(*extras: str) -> str:
    """Return the command that installs these extras."""
    return f"pip install '{_PACKAGE}[{','.join(extras)}]'"


def _missing(extra: str) -> set[str]:
    try:
        declared = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return set()
    absent: set[str] = set()
    for requirement in map(Requirement, declared):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == _PACKAGE:
            absent |= set(missing(*requirement.extras))
        elif not _is_installed(requirement.name):
            absent.add(requirement.name)
    return absent


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
