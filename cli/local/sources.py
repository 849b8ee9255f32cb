"""The source files of an author's packages, and which of them have changed."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.start import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOOK_EVERY_S = 0.25


class Sources:
    """The Python files of the packages that have these modules, except those of the service.

    This process has imported the contracts, as gateways do, and no task.
    """

    def __init__(self, contracts: Iterable[str], tasks: Iterable[str]) -> None:
        tasks = list(tasks)
        tops = dict.fromkeys(name.partition(".")[0] for name in (*contracts, *tasks))
        self.roots = [root for top in tops if top not in PACKAGES for root in _roots(top)]
        self._of_tasks = [root for name in tasks for root in _roots(name)]
        self._of_contracts = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        self._follows_contracts = True  # until one changes: then it may import what only tasks had
        self._looked_at = time.monotonic()
        self._known = self._now()

    def changed(self) -> list[str]:
        """Return the files that have changed, come or gone since the last call. It looks four times a second."""
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return []
        self._looked_at = time.monotonic()
        before, self._known = self._known, self._now()
        return sorted({path for path, _ in set(before.items()) ^ set(self._known.items())})

    def only_tasks(self, changed: Iterable[str]) -> bool:
        """Return whether the changed files are of tasks, so that only workers have loaded them."""
        self._follows_contracts = self._follows_contracts and all(
            path not in self._of_contracts and any(Path(path).is_relative_to(root) for root in self._of_tasks)
            for path in changed
        )
        return self._follows_contracts

    def _now(self) -> dict[str, tuple[int, int]]:
        return {str(path): found for path in self._files() if (found := _state(path))}

    def _files(self) -> Iterator[Path]:
        for root in self.roots:
            yield from (root.rglob("*.py") if root.is_dir() else [root])


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:  # an editor replaces a file by a new one
        return None
    return found.st_mtime_ns, found.st_size


def _roots(name: str) -> list[Path]:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # the package above it
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []
