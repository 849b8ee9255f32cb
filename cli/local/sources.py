"""The source files of an author's packages, and which of them have changed."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.start import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOOK_EVERY_S = 0.25


class Sources:
    """The Python files of the packages that have these modules, except those of the service."""

    def __init__(self, modules: Iterable[str]) -> None:
        tops = dict.fromkeys(name.partition(".")[0] for name in modules)
        self.roots = [root for top in tops if top not in PACKAGES for root in _roots(top)]
        self._looked_at = time.monotonic()
        self._known = self._now()

    def changed(self) -> list[str]:
        """Return the files that have changed, come or gone since the last call. It looks four times a second."""
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return []
        self._looked_at = time.monotonic()
        before, self._known = self._known, self._now()
        return sorted({path for path, _ in set(before.items()) ^ set(self._known.items())})

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


def _roots(top: str) -> list[Path]:
    spec = find_spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []
